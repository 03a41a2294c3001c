# The defaults, seen from inside a container and from the engine.
load helper

setup_file() {
    daemon_start agentConfigs.inward.networkMode=internal agentConfigs.alone.networkMode=none warmupAgentTypes=coder,inward,alone \
        poolSize=2 agentConfigs.alone.poolSize=1
}
teardown_file() { daemon_finish; }
teardown() { audit; }

inside() { wp_run coder -- sh -c "$1"; }
status_field() { inside "sed -n 's/^$1:[[:space:]]*//p' /proc/self/status"; }

@test "no capabilities, seccomp filter, no new privileges" {
    for set in CapInh CapPrm CapEff CapBnd CapAmb; do
        [ "$(status_field $set)" = 0000000000000000 ]
    done
    [ "$(status_field Seccomp)" = 2 ]
    [ "$(status_field NoNewPrivs)" = 1 ]
}

@test "a numeric uid out of uidRange, another one in every container, called swarm" {
    api GET /v1/containers | jq -e 'all(.[]; .uid >= 2000000000 and .uid <= 2000065535)'
    api GET /v1/containers | jq -e '(map(.uid) | unique | length) == length'
    uid=$(inside 'id -u')
    [ "$uid" -ge 2000000000 ]
    [ "$(inside 'echo $USER $HOME')" = 'swarm /workspace' ]
    # passwd is of the directory that the socket transport has.
    [ "${TRANSPORT:-}" = attach ] || [ "$(inside 'id -un')" = swarm ]
    [ "$(inside 'id -G')" = "$uid" ]
}

@test "the root is read-only; /tmp, /workspace and /dev/shm can be written" {
    run inside 'touch /x'
    [[ "$output" == *"Read-only file system"* ]]
    run inside 'touch /etc/x /bin/x /.warmpool/x'
    [ "$status" != 0 ]
    inside 'touch /tmp/x /workspace/x /dev/shm/x'
    [ "$(inside 'awk "\$2 == \"/\" { print \$4 }" /proc/mounts | tail -n 1 | cut -d, -f1')" = ro ]
}

@test "/tmp is noexec, nosuid, nodev; /workspace may execute" {
    [[ "$(inside 'awk "\$2 == \"/tmp\" { print \$4 }" /proc/mounts')" == *nosuid*nodev*noexec* ]]
    options=$(inside 'awk "\$2 == \"/workspace\" { print \$4 }" /proc/mounts')
    [[ "$options" == *nosuid* && "$options" == *nodev* && "$options" != *noexec* ]]
    run inside 'cp /bin/busybox /tmp/true && /tmp/true'
    [[ "$output" == *"ermission denied"* ]]
    inside 'cp /bin/busybox /workspace/true && /workspace/true'
}

@test "the mounts' roots are root's, 1777, sized and limited in inodes" {
    [ "$(inside 'stat -c "%u %g %a" /tmp /workspace' | sort -u)" = "0 0 1777" ]
    limits=$(inside 'stat -f -c "%c" /tmp /workspace /dev/shm')
    for inodes in $limits; do [ "$inodes" -gt 0 ] && [ "$inodes" -le 131072 ]; done
    # Together at most half of the memory limit, so that a full one is ENOSPC and no OOM kill.
    sum=$(inside 'stat -f -c "%b %S" /tmp /workspace /dev/shm' | awk '{ sum += $1 * $2 } END { printf "%d", sum / 1048576 }')
    [ "$sum" -le 256 ]
}

@test "limits of memory, cpu, processes and files are the profile's" {
    id=$(container_of coder)
    [ "$(docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}' "$id")" = \
        "536870912 536870912 1000000000 128" ]
    [ "$(inside 'ulimit -n')" = 1024 ]
    run inside 'i=0; while [ $i -lt 300 ]; do sleep 5 & i=$((i + 1)); done; echo all'
    [[ "$output" == *"fork"* || "$output" == *"esource temporarily"* ]]
    eventually 10 pool_settles coder 2
    inside true
}

@test "no log driver, no capabilities, no-new-privileges in the engine's words too" {
    id=$(container_of coder)
    [ "$(docker inspect --format '{{.HostConfig.LogConfig.Type}} {{.HostConfig.CapDrop}} {{.HostConfig.Privileged}} {{.HostConfig.ReadonlyRootfs}}' "$id")" = \
        "none [ALL] false true" ]
    docker inspect --format '{{.HostConfig.SecurityOpt}}' "$id" | grep -q no-new-privileges
    [ "$(docker inspect --format '{{.HostConfig.PidMode}}{{.HostConfig.IpcMode}}{{.HostConfig.UTSMode}}' "$id")" = private ]
}

@test "PID 1 cannot be traced, signalled to death or read by a task" {
    run inside 'kill -9 1; kill -TERM 1; kill -STOP 1; echo alive'
    [[ "$output" == *alive* ]]
    run inside 'cat /proc/1/environ || ls /proc/1/fd || cat /proc/1/maps'
    [ "$status" != 0 ]
    [[ "$output" == *"ermission denied"* ]]
    [ "$(inside 'cat /proc/1/comm')" = runner ]
}

@test "the runner's directory shows no secrets and cannot be written" {
    run inside 'cat /.warmpool/runner >/dev/null'
    [ "$status" != 0 ]
    run inside 'rm /.warmpool/sock'
    [ "$status" != 0 ]
    wp_run coder -- true
}

@test "no way to the engine's socket or the host's processes" {
    run inside 'ls /var/run/docker.sock /run/docker.sock'
    [ "$status" != 0 ]
    [ "$(inside 'ls -d /proc/[0-9]* | wc -l')" -le 6 ]
}

inside_of() { wp_run "$1" -- sh -c "$2"; }

@test "isolated: a network of the container's own, another container cannot be reached" {
    [ "$(api GET /v1/containers | jq '[.[] | select(.agentType == "coder") | .networkId] | unique | length')" = 2 ]
    for id in $(api GET /v1/containers | jq -r '.[] | select(.agentType == "coder") | .containerId'); do
        docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$id"
    done >"$BATS_TEST_TMPDIR/addresses"
    [ "$(sort -u "$BATS_TEST_TMPDIR/addresses" | wc -l)" = 2 ]
    wp_run coder -- sh -c 'nc -l -p 7777 -e echo reached; true' >/dev/null 2>&1 3>&- &
    server=$!
    busy() { [ "$(pool_of coder .busy)" = 1 ]; }
    eventually 5 busy
    target=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' \
        "$(api GET /v1/containers | jq -r '.[] | select(.isInUse) | .containerId')")
    # The positive control: from the host the same listener is reached.
    run wp_run coder --timeout 3s -- sh -c "nc -w 2 $target 7777 </dev/null"
    [[ "$output" != *reached* ]]
    reached=$(timeout 3 socat -u "TCP:$target:7777" - || true)
    [ "$reached" = reached ]
    wait $server || true
}

@test "internal: an address, but no way to the host at any of its addresses" {
    own=$(inside_of inward 'ip -4 -o addr show dev eth0' | sed -n 's/.* inet \([0-9.]*\)\/.*/\1/p')
    [ -n "$own" ]
    port=$((20000 + RANDOM % 20000))
    socat "TCP-LISTEN:$port,fork,reuseaddr" SYSTEM:'echo answered' 3>&- &
    listener=$!
    sleep 0.2
    bridge=$(docker network inspect bridge --format '{{(index .IPAM.Config 0).Gateway}}')
    # The positive control: the listener can be reached at that address.
    control=$(timeout 2 socat -u "TCP:$bridge:$port" - || true)
    heard=
    for address in "$bridge" "${own%.*}.$((${own##*.} - 1))"; do
        heard+=$(wp_run inward --timeout 4s -- sh -c "nc -w 2 $address $port </dev/null" 2>/dev/null || true)
    done
    kill $listener
    [ "$control" = answered ]
    [ -z "$heard" ]
}

@test "none: nothing but loopback" {
    [ "$(inside_of alone 'ls /sys/class/net')" = lo ]
    [ "$(docker inspect --format '{{.HostConfig.NetworkMode}}' "$(container_of alone)")" = none ]
}

@test "host networking and unconfined seccomp are refused unless allowUnsafe names them" {
    for setting in networkMode=host networkMode=container:x securityOpts=seccomp=unconfined cleanupBetweenTasks=false user=root noNewPrivileges=false; do
        run timeout 20 "$BUILD/warmpoold" serve --socket "$PLACE/other.sock" --set stateDir="$PLACE/other" --set "$setting"
        [ "$status" != 0 ] && [ "$status" != 124 ] || { echo "$setting was accepted"; return 1; }
        [[ "$output" == *allowUnsafe* ]] || { echo "$setting: $output"; return 1; }
    done
}
