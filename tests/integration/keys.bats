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
