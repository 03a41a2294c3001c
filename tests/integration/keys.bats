# Configuration keys, seen from inside a container, from the engine or in the daemon's answers: two values of each.
load helper

setup_file() {
    # One daemon, an agent type for each value; a pool is made with its first task.
    daemon_place
    export DAEMON_CONFIG=$PLACE/warmpool.yaml
    cat >"$DAEMON_CONFIG" <<'YAML'
agentConfigs:
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
teardown_file() { daemon_finish; }
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
        api POST /v1/tasks --data "{\"agentType\":\"$type\",$one\"command\":[\"true\"]}" >/dev/null 3>&- &&
            echo "${one:-silent}" >>"$BATS_TEST_TMPDIR/$type" &
        tasks+=($!)
        eventually 5 waits "$type" $((${#tasks[@]} - 1))
    done
    wait "${tasks[@]}"
    head -n 1 "$BATS_TEST_TMPDIR/$type"
}
is_busy() { [ "$(pool_of "$1" .busy)" = 1 ]; }
waits() { [ "$(pool_of "$1" .waiting)" = "$2" ]; }

@test "resourceLimits: priority, for requests that do not say" {
    [[ "$(first_of_two res-a)" == *low* ]]
    [ "$(first_of_two res-b)" = silent ]
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
    [[ "$output" == *"check.yaml: correct" ]]
    [[ "$stderr" == *"check.yaml: warning: many: pids is 5000"* ]]
    echo 'sandboxed: false' >"$BATS_TEST_TMPDIR/check.yaml"
    run warmpool config check "$BATS_TEST_TMPDIR/check.yaml"
    [ "$status" = 2 ]
    [[ "$output" == *"sandboxed: false is not possible"*allowUnsafe* ]]
}
