# Configuration keys, seen from inside a container, from the engine or in the daemon's answers: two values of each.
load helper

setup_file() {
    # One daemon, an agent type for each value; a pool is made with its first task.
    daemon_place
    export DAEMON_CONFIG=$PLACE/warmpool.yaml SHARED=wp-keys-${PLACE##*-}
    docker network create --label io.warmpool.test=keys "$SHARED-a" >/dev/null
    docker network create --label io.warmpool.test=keys "$SHARED-b" >/dev/null
    mkdir -m 777 "$PLACE/outer"
    echo brought >"$PLACE/outer/file"
    cat >"$DAEMON_CONFIG" <<YAML
networkMode: none
allowUnsafe: [new-privileges]
agentConfigs:
  ulimit-a: {ulimits: {nofile: 200}}
  ulimit-b: {ulimits: {nofile: "100:300", core: 0, stack: 4194304}}
  mount-a: {volumeMounts: ["$PLACE/outer:/outer"]}
  mount-b: {volumeMounts: ["$PLACE/outer:/other/place:rw"]}
  swap-a: {memorySwappiness: 0}
  swap-b: {memorySwappiness: 10}
  oom-a: {oomScoreAdj: 100}
  oom-b: {oomScoreAdj: 300}
  net-a: {networkMode: $SHARED-a}
  net-b: {networkMode: $SHARED-b}
  tmpfs-a: {tmpfsLimits: {/tmp: 3m, /data: 5m}}
  tmpfs-b: {tmpfsLimits: {/tmp: 6m, /dev/shm: 1m}}
  seccomp-a: {securityOpts: ['seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["link","linkat"],"action":"SCMP_ACT_ERRNO"}]}']}
  seccomp-b: {securityOpts: ['seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["symlink","symlinkat"],"action":"SCMP_ACT_ERRNO"}]}']}
  user-a: {user: "1234"}
  user-b: {user: "1234:5678"}
  pids-a: {pids: 20}
  pids-b: {pids: 40}
  given-a: {environment: {KEY: x}, memory: 64m, cpus: 0.3, noNewPrivileges: false}
  given-b: {environment: {KEY: y}, memory: 96m, cpus: 0.6, noNewPrivileges: true}
  task-a: {maxOutputBytes: 10, timeoutMs: 200, maxTasksPerContainer: 1, command: [echo, "a {{description}}"]}
  task-b: {maxOutputBytes: 20, timeoutMs: 0, maxTasksPerContainer: 2, command: [echo, "{{description}} b"]}
  cpu-a: {cpuQuota: 30000}
  cpu-b: {cpuQuota: 75000}
  env-a: {environmentWhitelist: [LANG, "APP_*"], environment: {OWN: mine}}
  env-b: {environmentWhitelist: [OTHER]}
  out-a: {captureOutput: false}
  out-b: {captureOutput: true}
  stream-a: {streamOutput: false}
  stream-b: {streamOutput: true}
  res-a: {resourceLimits: {maxMemory: 100m, maxFileHandles: 333, maxDiskSpace: 70m, maxCpuTime: 1s, priority: background}}
  res-b: {resourceLimits: {maxMemory: 80m, maxFileHandles: 444, maxDiskSpace: 14m, maxCpuTime: 3s}}
YAML
    daemon_start_here
}
teardown_file() {
    local failed=0
    daemon_finish || failed=1
    docker network rm "$SHARED-a" "$SHARED-b" >/dev/null
    return $failed
}
teardown() { audit; }

inside() { wp_run "$1" -- sh -c "$2"; }
host_config() { docker inspect --format "{{$2}}" "$(container_of "$1")"; }

@test "cpuQuota: the cgroup's quota" {
    [ "$(host_config cpu-a .HostConfig.NanoCpus)" = 300000000 ]
    [ "$(host_config cpu-b .HostConfig.NanoCpus)" = 750000000 ]
}

@test "environmentWhitelist: what a request may set" {
    [ "$(wp_run env-a -e LANG=C -e APP_X=1 -- sh -c 'echo $LANG $APP_X $OWN')" = "C 1 mine" ]
    run wp_run env-a -e OTHER=1 -- true
    [ "$status" != 0 ]
    [[ "$output" == *"OTHER is not in environmentWhitelist of env-a"* ]]
    [ "$(wp_run env-b -e OTHER=1 -- sh -c 'echo $OTHER')" = 1 ]
    run wp_run env-b -e LANG=C -- true
    [ "$status" != 0 ]
    [ "$(api POST /v1/tasks -o /dev/null -w '%{http_code}' --data '{"agentType":"env-b","command":["true"],"env":{"PATHS":"x"}}')" = 400 ]
}

@test "captureOutput: for requests that do not say" {
    [ "$(post out-a echo x | jq -c '[.success, .output]')" = '[true,null]' ]
    [ "$(post out-b echo x | jq -c .output)" = '"x\n"' ]
    [ "$(api POST /v1/tasks --data '{"agentType":"out-a","command":["echo","x"],"captureOutput":true}' | jq -c .output)" = '"x\n"' ]
    [ "$(wp_run out-a -- echo streamed)" = streamed ]
}

streamed() { # TYPE MEMBERS: the kinds of events, and the result's output
    api POST /v1/tasks -H 'Accept: application/x-ndjson' --data "{\"agentType\":\"$1\",\"command\":[\"echo\",\"x\"]$2}" |
        jq -cs '[map(.type), .[-1].result.output]'
}

@test "streamOutput: for requests that do not say" {
    [ "$(streamed stream-a '')" = '[["started","result"],"x\n"]' ]
    [ "$(streamed stream-a ',"streamOutput":true')" = '[["started","stdout","result"],null]' ]
    [ "$(streamed stream-b '')" = '[["started","stdout","result"],null]' ]
    [ "$(streamed stream-b ',"streamOutput":false')" = '[["started","result"],null]' ]
    [ "$(wp_run stream-a -- echo streamed)" = streamed ]
}

disk_mib() { # TYPE: of the writable mounts together
    inside "$1" 'stat -f -c "%b %S" /tmp /workspace /dev/shm' | awk '{ sum += $1 * $2 } END { printf "%d", sum / 1048576 }'
}

@test "resourceLimits: maxMemory, maxFileHandles, maxDiskSpace" {
    [ "$(host_config res-a .HostConfig.Memory)" = $((100 << 20)) ]
    [ "$(host_config res-b .HostConfig.Memory)" = $((80 << 20)) ]
    [ "$(inside res-a 'ulimit -n; ulimit -Hn' | xargs)" = "333 333" ]
    [ "$(inside res-b 'ulimit -n; ulimit -Hn' | xargs)" = "444 444" ]
    [ "$(disk_mib res-a)" = 70 ]
    [ "$(disk_mib res-b)" = 14 ]
}

@test "resourceLimits: maxCpuTime of each task" {
    # The limit, not the clock: a task that sleeps lives on.
    [ "$(inside res-a 'ulimit -t; sleep 1.5; ulimit -Ht' | xargs)" = "1 2" ]
    [ "$(inside res-b 'ulimit -t')" = 3 ]
    result=$(post res-a sh -c 'while :; do :; done')
    [ "$(jq -c '[.success, .exitCode]' <<<"$result")" = '[false,152]' ]
    [[ "$(jq -r '.outcome + ": " + .error' <<<"$result")" == "signaled: "*"CPU time limit (resourceLimits.maxCpuTime) of 1 s"* ]] || {
        echo "$result"
        return 1
    }
    # Who ignores the signal is killed a second later.
    [[ "$(post res-a sh -c 'trap "" XCPU; while :; do :; done')" == *"CPU time limit"* ]]
    # The next task has its own second.
    wp_run res-a -- sh -c 'i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); done'
}

# Runs one task that says nothing, then one of low priority, while the only container is busy: who was first?
first_of_two() { # TYPE
    local type=$1 tasks=()
    inside "$type" 'sleep 1' >/dev/null 2>&1 3>&- &
    tasks+=($!)
    eventually 5 is_busy "$type"
    for one in '' '"priority":"low",'; do
        api POST /v1/tasks --data "{\"agentType\":\"$type\",$one\"command\":[\"true\"]}" 3>&- |
            jq -r --arg one "${one:-silent}" '"\(.metadata.execCount) \($one)"' >>"$BATS_TEST_TMPDIR/$type" &
        tasks+=($!)
        eventually 5 waits "$type" $((${#tasks[@]} - 1))
    done
    wait "${tasks[@]}"
    sort -n "$BATS_TEST_TMPDIR/$type" | head -n 1
}
is_busy() { [ "$(pool_of "$1" .busy)" = 1 ]; }
waits() { [ "$(pool_of "$1" .waiting)" = "$2" ]; }

@test "resourceLimits: priority, for requests that do not say" {
    [[ "$(first_of_two res-a)" == *low* ]]
    [[ "$(first_of_two res-b)" == *silent ]]
}

@test "enableMetrics, sandboxed, warnings: another daemon" {
    api GET /v1/metrics | jq -e .tasks
    (
        unset DAEMON_CONFIG INSTANCE
        trap daemon_finish EXIT
        daemon_start enableMetrics=false agentConfigs.loose.readOnlyRootFs=false agentConfigs.many.pids=5000
        [ "$(api GET /v1/metrics | jq -r .error.hint)" = "set enableMetrics to true in the configuration and restart the daemon" ]
        [ "$(api GET /v1/metrics -o /dev/null -w '%{http_code}')" = 404 ]
        grep -q 'warn.*loose: readOnlyRootFs is false: .*each container serves one task' "$DAEMON_LOG"
        grep -q 'warn.*many: pids is 5000' "$DAEMON_LOG"
        [ "$(grep -c ' warn ' "$DAEMON_LOG")" = 2 ]
        [ "$(container_of loose)" != "$(container_of loose)" ] # as the warning says
    )
    echo 'agentConfigs: {many: {pids: 5000}}' >"$BATS_TEST_TMPDIR/check.yaml"
    run --separate-stderr warmpool config check "$BATS_TEST_TMPDIR/check.yaml"
    [ "$status" = 0 ]
    [[ "$output" == *"check.yaml: OK, 1 key, 1 warning" ]]
    [[ "$stderr" == *"check.yaml: warning: many: pids is 5000"* ]]
    echo 'sandboxed: false' >"$BATS_TEST_TMPDIR/check.yaml"
    run warmpool config check "$BATS_TEST_TMPDIR/check.yaml"
    [ "$status" = 2 ]
    [[ "$output" == *"sandboxed: false is not possible"*allowUnsafe* ]]
}

@test "ulimits: soft and hard, in the task" {
    [ "$(inside ulimit-a 'ulimit -n; ulimit -Hn' | xargs)" = "200 200" ]
    [ "$(inside ulimit-b 'ulimit -n; ulimit -Hn; ulimit -c; ulimit -s' | xargs)" = "100 300 0 4096" ]
}

@test "volumeMounts: read-only, or writable where it says so" {
    [ "$(inside mount-a 'cat /outer/file')" = brought ]
    run inside mount-a 'echo x >/outer/new'
    [[ "$status" != 0 && "$output" == *"Read-only file system"* ]]
    [ "$(inside mount-b 'cat /other/place/file; echo left >/other/place/new')" = brought ]
    [ "$(cat "$PLACE/outer/new")" = left ]
    # What the warning says of it: the next task meets it.
    [ "$(inside mount-a 'cat /outer/new')" = left ]
    grep -q "warn.*mount-b: volumeMounts: .*/outer is writable at /other/place" "$DAEMON_LOG"
    ! grep -q "warn.*mount-a" "$DAEMON_LOG"
}

@test "memorySwappiness, oomScoreAdj" {
    [ "$(host_config swap-a .HostConfig.MemorySwappiness)" = 0 ]
    [ "$(host_config swap-b .HostConfig.MemorySwappiness)" = 10 ]
    if [ -d /sys/fs/cgroup/memory/docker ]; then # cgroup v1
        [ "$(cat "/sys/fs/cgroup/memory/docker/$(container_of swap-a)/memory.swappiness")" = 0 ]
        [ "$(cat "/sys/fs/cgroup/memory/docker/$(container_of swap-b)/memory.swappiness")" = 10 ]
    fi
    # Tasks go before the runner.
    [ "$(inside oom-a 'sleep 0.2; cat /proc/1/oom_score_adj /proc/self/oom_score_adj' | xargs)" = "100 1000" ]
    [ "$(inside oom-b 'sleep 0.2; cat /proc/1/oom_score_adj /proc/self/oom_score_adj' | xargs)" = "300 1000" ]
}

networks() { docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$(container_of "$1")" | xargs; }

@test "networkMode: a network by its name, shared and said so" {
    [ "$(networks net-a)" = "$SHARED-a" ]
    [ "$(networks net-b)" = "$SHARED-b" ]
    inside net-a 'ip -o -4 addr show' | grep -v ' lo ' | grep -q inet
    ! inside user-a 'ip -o -4 addr show' | grep -v ' lo ' | grep inet
    grep -q "warn.*net-a: networkMode is $SHARED-a: all containers of that network" "$DAEMON_LOG"
}

sizes_of() { # TYPE PATHS: KiB each
    inside "$1" "stat -f -c '%b %S' $2" | awk '{ print $1 * $2 / 1024 }' | xargs
}

@test "tmpfsLimits: sizes, and what else is writable" {
    [ "$(sizes_of tmpfs-a '/tmp /data')" = "3072 5120" ]
    [ "$(sizes_of tmpfs-b '/tmp /dev/shm')" = "6144 1024" ]
    [ "$(inside tmpfs-a 'head -c 6000000 /dev/zero >/data/x; stat -c %s /data/x')" = $((5 << 20)) ]
    [ "$(inside tmpfs-b 'head -c 6000000 /dev/zero >/tmp/x; stat -c %s /tmp/x')" = 6000000 ]
    [ "$(inside tmpfs-a 'ls /data')" = "" ]
}

@test "securityOpts: a seccomp profile of one's own" {
    run inside seccomp-a 'cd /workspace && ln -s a b && touch f && ln f g'
    [[ "$status" != 0 && "$output" == *"g: Operation not permitted"* ]]
    run inside seccomp-b 'cd /workspace && touch f && ln f g && ln -s a b'
    [[ "$status" != 0 && "$output" == *"b: Operation not permitted"* ]]
    grep -q "warn.*seccomp-a: securityOpts: seccomp: this profile replaces" "$DAEMON_LOG"
}

@test "user: passed to the engine" {
    [ "$(inside user-a 'id -u; id -g' | xargs)" = "1234 0" ]
    [ "$(inside user-b 'id -u; id -g' | xargs)" = "1234 5678" ]
    grep -q "warn.*user-a: user is 1234" "$DAEMON_LOG"
}

@test "pids: the cgroup's limit" {
    [ "$(host_config pids-a .HostConfig.PidsLimit)" = 20 ]
    [ "$(host_config pids-b .HostConfig.PidsLimit)" = 40 ]
    [ "$(inside pids-a 'for i in $(seq 10); do sleep 0.3 & done; echo all')" = all ]
    run inside pids-a 'for i in $(seq 30); do sleep 0.3 & done; echo all'
    [[ "$output" == *"an't fork"* ]]
    [ "$(inside pids-b 'for i in $(seq 30); do sleep 0.3 & done; echo all')" = all ]
}

@test "environment, memory, cpus, noNewPrivileges" {
    [ "$(inside given-a 'echo $KEY')" = x ]
    [ "$(inside given-b 'echo $KEY')" = y ]
    [[ "$(host_config given-a .HostConfig.SecurityOpt)" != *no-new-privileges* ]]
    [[ "$(host_config given-b .HostConfig.SecurityOpt)" == *no-new-privileges* ]]
    # The runner does not rely on it.
    [ "$(inside given-a 'sed -n "s/NoNewPrivs:.//p" /proc/self/status')" = 1 ]
    [ "$(host_config given-a .HostConfig.Memory) $(host_config given-a .HostConfig.NanoCpus)" = "$((64 << 20)) 300000000" ]
    [ "$(host_config given-b .HostConfig.Memory) $(host_config given-b .HostConfig.NanoCpus)" = "$((96 << 20)) 600000000" ]
}

most_tasks_in_one() { # TYPE: container, of five tasks
    for _ in 1 2 3 4 5; do container_of "$1"; done | uniq -c | awk '$1 > most { most = $1 } END { print most }'
}

@test "maxOutputBytes, timeoutMs, maxTasksPerContainer, command" {
    [ "$(post task-a sh -c 'printf %030d 1' | jq -c '[(.output | length), .truncated]')" = '[10,true]' ]
    [ "$(post task-b sh -c 'printf %030d 1' | jq -c '[(.output | length), .truncated]')" = '[20,true]' ]
    [ "$(post task-a sleep 60 | jq -r .outcome)" = timed_out ]
    [ "$(post task-b sleep 0.5 | jq -r .outcome)" = exited ]
    [ "$(most_tasks_in_one task-a)" = 1 ]
    [ "$(most_tasks_in_one task-b)" = 2 ]
    for type in task-a task-b; do
        api POST /v1/tasks --data "{\"agentType\":\"$type\",\"task\":{\"description\":\"d\"}}" | jq -r .output
    done >"$BATS_TEST_TMPDIR/commands"
    [ "$(xargs <"$BATS_TEST_TMPDIR/commands")" = "a d d b" ]
}

@test "the working directory is /workspace, or the request's" {
    [ "$(wp_run user-a -- pwd)" = /workspace ]
    [ "$(wp_run user-a --workdir /tmp -- pwd)" = /tmp ]
}
