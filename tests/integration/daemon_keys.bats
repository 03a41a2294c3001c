# Keys of the daemon, each at two values: daemons one after the other, and what is different between them.
load helper

teardown() { [ -z "${PLACE:-}" ] || daemon_finish; }

# with KEY=VALUE... -- COMMAND...: what the command prints where a daemon has these.
with() {
    local settings=() result=0
    while [ "$1" != -- ]; do
        settings+=("$1")
        shift
    done
    shift
    daemon_start networkMode=none "${settings[@]}" || return 1
    "$@" || result=$?
    daemon_finish || result=1
    PLACE=
    return $result
}

lines_of_log() { wp_run coder -- true && eventually 5 pool_settles coder 1 && grep -cE " $1 " "$DAEMON_LOG" || true; }

@test "logLevel: what the log has" {
    [ "$(with logLevel=error -- lines_of_log '(info|debug)')" = 0 ]
    [ "$(with logLevel=info -- lines_of_log info)" -ge 1 ]
    [ "$(with logLevel=info -- lines_of_log debug)" = 0 ]
    [ "$(with logLevel=debug -- lines_of_log debug)" -ge 1 ]
}

first_address() { wp_run coder -- sh -c 'ip -o -4 addr show' | sed -n 's/.* inet \([0-9.]*\).*/\1/p' | grep -v '^127'; }

@test "networkSubnetPool: the containers' addresses" {
    [[ "$(with networkMode=isolated networkSubnetPool=10.177.0.0/24 -- first_address)" == 10.177.0.* ]]
    [[ "$(with networkMode=isolated networkSubnetPool=10.178.4.0/24 -- first_address)" == 10.178.4.* ]]
}

@test "uidRange: the containers' users" {
    uid() { wp_run coder -- id -u; }
    uid=$(with uidRange=300000-300009 -- uid)
    [ "$uid" -ge 300000 ] && [ "$uid" -le 300009 ]
    uid=$(with uidRange=400000-400009 -- uid)
    [ "$uid" -ge 400000 ] && [ "$uid" -le 400009 ]
}

networks_of_two() { # before and after the container is replaced
    local name before after
    before=$(api GET /v1/containers | jq -r '.[0].networkId')
    name=$(api GET /v1/containers | jq -r '.[0].containerId')
    warmpool refresh "$name" >/dev/null
    another() { [ "$(api GET /v1/containers | jq -r '[.[].containerId] | join(" ")')" != "$name" ] && pool_settles coder 1; }
    eventually 20 another
    # The surge container had the other place: once more, and the first place is used again.
    name=$(api GET /v1/containers | jq -r '.[0].containerId')
    warmpool refresh "$name" >/dev/null
    eventually 20 another
    after=$(api GET /v1/containers | jq -r '.[0].networkId')
    [ -n "$before" ] && [ "$before" = "$after" ] && echo kept || echo new
}

@test "optimizeNetworking: the next container of a place has its network, or a new one" {
    [ "$(with networkMode=isolated optimizeNetworking=true -- networks_of_two)" = kept ]
    [ "$(with networkMode=isolated optimizeNetworking=false -- networks_of_two)" = new ]
}

most_creating() {
    warmpool warm coder 6 >/dev/null 3>&- &
    local most=0 now task=$!
    while kill -0 $task 2>/dev/null; do
        now=$(pool_of coder .creating)
        [ "$now" -le $most ] || most=$now
    done
    wait $task
    echo $most
}

@test "maxConcurrentCreates: how many are made at once" {
    most=$(with maxConcurrentCreates=1 -- most_creating)
    echo "$most"
    [ "$most" = 1 ]
    [ "$(with maxConcurrentCreates=4 -- most_creating)" -gt 1 ]
}

total_after_burst() {
    local tasks=()
    for type in a b c d; do
        wp_run $type -- sleep 1 3>&- >/dev/null &
        tasks+=($!)
    done
    sleep 1
    docker ps -q --filter "label=$LABEL=$INSTANCE" | wc -l >"$BATS_TEST_TMPDIR/total"
    wait "${tasks[@]}"
    cat "$BATS_TEST_TMPDIR/total"
}

@test "maxTotalContainers: of all pools together" {
    total=$(with maxTotalContainers=2 queueTimeoutMs=3s warmupAgentTypes= -- total_after_burst)
    [ "$total" -le 2 ]
    total=$(with maxTotalContainers=4 queueTimeoutMs=3s warmupAgentTypes= -- total_after_burst)
    [ "$total" -gt 2 ] && [ "$total" -le 4 ]
}

@test "warmupAgentTypes: which pools are there before any task" {
    pools() { api GET /v1/containers | jq -r '[.[].agentType] | unique | join(" ")'; }
    [ "$(with warmupAgentTypes=coder,planner -- pools)" = "coder planner" ]
    [ "$(with warmupAgentTypes= -- pools)" = "" ]
}

@test "strictAgentTypes: a type without a profile is refused, or gets the default one" {
    stranger() { wp_run stranger -- echo served 2>&1 || true; }
    [[ "$(with strictAgentTypes=true -- stranger)" == *"no agent type"* ]]
    [ "$(with strictAgentTypes=false -- stranger)" = served ]
}

# strays KEY=VALUE: LEFT is how many containers of a killed daemon are there when the next one, with this setting, is ready.
strays() {
    daemon_start networkMode=none warmupAgentTypes=coder poolSize=2
    old=$(docker ps -q --no-trunc --filter "label=$LABEL=$INSTANCE")
    kill -KILL "$DAEMON_PID"
    eventually 5 daemon_is_gone
    daemon_launch networkMode=none warmupAgentTypes=coder "$1"
    eventually 60 daemon_is_ready
    LEFT=0
    sleep 1
    for id in $old; do ! docker inspect "$id" >/dev/null 2>&1 || LEFT=$((LEFT + 1)); done
}

@test "autoCleanup: what a killed daemon left is removed, or stays" {
    strays autoCleanup=true
    [ "$LEFT" = 0 ]
    daemon_finish
    strays autoCleanup=false
    [ "$LEFT" = 2 ]
    warmpool down >/dev/null
    eventually 20 daemon_is_gone
    remove_objects "$INSTANCE" || true
    [ -z "$(instance_objects "$INSTANCE")" ]
    rm -rf "$PLACE"
    PLACE=
}

is_there() { api GET "/healthz" -o /dev/null; }

@test "dockerHost, stateDir, socket: where it looks, writes and listens" {
    daemon_place
    local name
    for name in one two; do
        cat >"$PLACE/$name.yaml" <<YAML
socket: $PLACE/$name.sock
stateDir: $PLACE/$name
dockerHost: unix://$PLACE/$name-engine.sock
warmupAgentTypes: []
YAML
        "$BUILD/warmpoold" serve --config "$PLACE/$name.yaml" >"$PLACE/$name.log" 2>&1 </dev/null 3>&- &
        DAEMON_PID=$! SOCKET=$PLACE/$name.sock
        eventually 10 is_there
        [ -e "$PLACE/$name/instance" ]
        warmpool status --json | jq -e --arg dir "$PLACE/$name" '.stateDir == $dir'
        grep -q "$PLACE/$name-engine.sock" "$PLACE/$name.log"
        kill "$DAEMON_PID"
        eventually 10 daemon_is_gone
    done
    rm -rf "$PLACE"
    PLACE=
}

@test "instance: the name in labels and of what is made; a state directory has one only" {
    daemon_start instance=blue
    [ "$INSTANCE" = blue ]
    [ -n "$(docker ps -q --filter "label=$LABEL=blue" --filter name=wp-blue-coder-)" ]
    warmpool down
    eventually 20 daemon_is_gone
    nothing_is_left
    daemon_start_here # empty: what it was
    [ "$INSTANCE" = blue ]
    warmpool down
    eventually 20 daemon_is_gone
    run "$BUILD/warmpoold" serve --socket "$SOCKET" --set "stateDir=$STATE" --set instance=green
    [ "$status" != 0 ]
    [[ "$output" == *"belongs to the instance blue, not to green"* ]]
    run "$BUILD/warmpoold" serve --socket "$SOCKET" --set instance=Green
    [[ "$output" == *"a name, [a-z0-9]"* ]]
}

@test "engine: what has to answer is checked" {
    [ "$(with engine=docker -- lines_of_log 'engine docker')" = 1 ]
    daemon_place
    daemon_launch engine=podman
    eventually 20 grep -q "engine: podman is wanted, but docker" "$DAEMON_LOG"
    [ "$(api GET /readyz -o /dev/null -w '%{http_code}')" = 503 ]
    [ "$(docker ps -aq --filter "label=$LABEL=$(cat "$STATE/instance")")" = "" ]
}
