# What one task leaves, the next one must not meet, in the same container. Each kind has its control: where nothing is cleaned up
# (cleanupBetweenTasks: false, which allowUnsafe has to name), the very same look finds it.
load helper

setup_file() {
    cp "$(realpath "${BUILD:-$ROOT/build}")/tests/residue/residue" "$BATS_FILE_TMPDIR/residue"
    chmod 755 "$BATS_FILE_TMPDIR"
    daemon_start "volumeMounts=$BATS_FILE_TMPDIR:/residue" networkMode=none agentConfigs.coder.cpus=2 \
        agentConfigs.hurried.resetTimeout=10ms
}
teardown_file() { daemon_finish; }
teardown() { audit; }

leaves_nothing() { # KIND
    before=$(wp_run coder --json -- /residue/residue leave "$1")
    [ "$(jq -r .exitCode <<<"$before")" = 0 ] || { echo "$before"; return 1; }
    eventually 10 pool_settles coder 1
    after=$(wp_run coder --json -- /residue/residue look "$1")
    [ "$(jq -r .exitCode <<<"$after")" = 0 ] || { echo "the next task met it: $after"; return 1; }
    [ "$(jq -r .metadata.containerId <<<"$before")" = "$(jq -r .metadata.containerId <<<"$after")" ] ||
        { echo "it took another container"; tail -n 5 "$DAEMON_LOG"; return 1; }
}

@test "System V shared memory of mode 000" { leaves_nothing shm; }
@test "System V semaphores" { leaves_nothing sem; }
@test "System V messages" { leaves_nothing msg; }
@test "POSIX message queues" { leaves_nothing mqueue; }
@test "POSIX shared memory" { leaves_nothing posix-shm; }
@test "directories 20,000 levels deep" { leaves_nothing deep; }
@test "20,000 files and FIFOs with line breaks in their names" { leaves_nothing many; }
@test "directories of mode 000, symbolic links in them" { leaves_nothing closed; }
@test "daemons that ignore every signal, one stopped" { leaves_nothing daemons; }
@test "a listening socket" { leaves_nothing listener; }
@test "an abstract unix socket" { leaves_nothing abstract; }

@test "without cleanup every one of these is met: the looks can see" {
    place=$PLACE socket=$SOCKET state=$STATE log=$DAEMON_LOG pid=$DAEMON_PID instance=$INSTANCE
    daemon_start "volumeMounts=$BATS_FILE_TMPDIR:/residue" networkMode=none cleanupBetweenTasks=false allowUnsafe=no-cleanup \
        agentConfigs.coder.cpus=2
    missed=
    # Processes, and the sockets that they hold, end with their task in any case; these outlive it.
    for kind in shm sem msg mqueue posix-shm closed deep; do
        wp_run coder -- /residue/residue leave $kind
        status=0
        wp_run coder -- /residue/residue look $kind || status=$?
        [ "$status" = 1 ] || missed="$missed $kind"
    done
    daemon_finish
    PLACE=$place SOCKET=$socket STATE=$state DAEMON_LOG=$log DAEMON_PID=$pid INSTANCE=$instance
    [ -z "$missed" ] || { echo "not seen:$missed"; return 1; }
}

@test "a container whose reset takes too long is destroyed, and another one serves" {
    before=$(wp_run hurried --json -- /residue/residue leave deep | jq -r .metadata.containerId)
    after=$(wp_run hurried --json -- /residue/residue look deep)
    [ "$(jq -r .exitCode <<<"$after")" = 0 ]
    [ "$(jq -r .metadata.containerId <<<"$after")" != "$before" ]
    grep -q "retired: its reset took longer than 10 ms" "$DAEMON_LOG"
    [ "$(pool_of hurried .resetsFailed)" -ge 1 ]
    eventually 15 pool_settles hurried "$(pool_of hurried .target)"
}

@test "the runner is small: the file at most 100 KiB, resident at most 512 KiB" {
    wp_run coder -- sh -c 'seq 1 100000 >/dev/null; cat </dev/null; ls -R /proc/1 >/dev/null 2>&1; seq 1 200000' >/dev/null
    eventually 5 pool_settles coder 1
    [ "$(stat -c %s "$STATE/runner")" -le 102400 ]
    pid=$(api GET /v1/containers | jq '.[0].pid')
    [ "$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")" -le 512 ]
}
