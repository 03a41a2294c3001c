# What an operator does: pause, resume, drain, refresh, reload; and what the pool does when its containers or the engine fail.
load helper

setup_file() {
    daemon_place
    export DAEMON_CONFIG=$PLACE/warmpool.yaml
    good_config
    daemon_start_here maxPoolSize=4
}
teardown_file() { daemon_finish; }
teardown() {
    good_config
    warmpool reload >/dev/null
    warmpool resume coder >/dev/null
    warmpool resume tester >/dev/null
    audit
}

good_config() {
    cat >"$DAEMON_CONFIG" <<'Y'
agentConfigs:
  coder: {memory: 256m, poolSize: 2}
  bad: {securityOpts: ["seccomp={\"defaultAction\": \"NONSENSE\"}"]}
Y
}

# seen TYPE CONDITION: such an event is in the daemon's memory.
seen() { { timeout 1 "$BUILD/warmpool" --socket "$SOCKET" events --json --since x-0 --type "$1" 2>/dev/null || true; } | jq -es "any(.[]; .type == \"$1\" and ($2))" >/dev/null; }
memory_of() { docker inspect --format '{{.HostConfig.Memory}}' $(warmpool ps --json | jq -r --arg type "$1" '.[] | select(.agentType == $type) | .containerId'); }
containers_of() { warmpool ps --json | jq -r --arg type "$1" '[.[] | select(.agentType == $type) | .containerId] | sort | join(" ")'; }

@test "a paused pool lets tasks wait and keeps its containers; resumed it serves them in order" {
    warmpool warm coder 2
    before=$(containers_of coder)
    warmpool pause coder
    [ "$(pool_of coder .paused)" = true ]
    for n in 1 2 3; do
        wp_run coder -- sh -c "echo $n" >"$BATS_TEST_TMPDIR/$n" &
        sleep 0.1
    done
    sleep 0.5
    [ "$(pool_of coder .waiting)" = 3 ]
    [ "$(pool_of coder .creating)" = 0 ]
    run warmpool run coder --queue-timeout 300ms -- true
    [ "$status" = 125 ]
    [[ $output == *paused* ]]
    [[ $(warmpool status) == *"paused: tasks wait"* ]]
    warmpool resume coder
    wait
    [ "$(cat "$BATS_TEST_TMPDIR"/[123])" = $'1\n2\n3' ]
    for id in $before; do [[ $(containers_of coder) == *"$id"* ]]; done
}

@test "drain serves what runs and waits, refuses what comes, leaves no container; resume opens again" {
    warmpool warm coder 2
    warmpool pause coder
    wp_run coder -- sh -c 'sleep 0.5; echo served' >"$BATS_TEST_TMPDIR/out" &
    sleep 0.3
    warmpool drain coder >"$BATS_TEST_TMPDIR/drained"
    grep -q drained "$BATS_TEST_TMPDIR/drained"
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = served ]
    [ "$(containers_of coder)" = "" ]
    run wp_run coder -- true
    [ "$status" = 125 ]
    [[ $output == *"warmpool resume coder"* ]]
    [ "$(api POST /v1/leases -d '{"agentType":"coder"}' -o /dev/null -w '%{http_code}')" = 503 ]
    warmpool resume coder
    [ "$(wp_run coder -- echo back)" = back ]
}

@test "refresh TYPE replaces every container, under load, without a dip and without a failed task" {
    warmpool warm coder 2
    before=$(containers_of coder)
    (for _ in $(seq 60); do wp_run coder -- sleep 0.02 || echo failed >>"$BATS_TEST_TMPDIR/failed"; done) &
    load=$!
    warmpool refresh coder
    least=99
    replaced() {
        local now serving
        now=$(warmpool ps --json)
        serving=$(jq '[.[] | select(.agentType == "coder" and (.state == "idle" or .state == "busy" or .state == "resetting"))] | length' <<<"$now")
        [ "$serving" -ge "$least" ] || least=$serving
        for id in $before; do [[ $now != *"$id"* ]] || return 1; done
    }
    eventually 20 replaced
    wait $load
    [ ! -e "$BATS_TEST_TMPDIR/failed" ]
    [ "$least" -ge 2 ]
}

@test "refresh says when there is neither such a type nor such a container" {
    run warmpool refresh nothing-of-the-kind
    [ "$status" = 125 ]
    run warmpool refresh 'a/b'
    [ "$status" = 125 ]
}

@test "a reload that changes one type's memory rolls that pool under load; the other is untouched; no task fails" {
    warmpool warm coder 2
    warmpool warm tester 1
    tester=$(containers_of tester)
    (for _ in $(seq 60); do wp_run coder -- sleep 0.02 || echo failed >>"$BATS_TEST_TMPDIR/failed"; done) &
    load=$!
    sed -i 's/256m/320m/' "$DAEMON_CONFIG"
    output=$(warmpool reload)
    [[ $output == *coder.memory* ]]
    [[ $output == *"1 pools replace"* ]]
    rolled() { [ "$(memory_of coder | sort -u)" = 335544320 ] && [ "$(pool_of coder .expiring)" = 0 ]; }
    eventually 20 rolled
    wait $load
    [ ! -e "$BATS_TEST_TMPDIR/failed" ]
    [ "$(containers_of tester)" = "$tester" ]
}

@test "a reload with a wrong file changes nothing and says line, key and what is allowed" {
    warmpool warm coder 2
    before=$(containers_of coder)
    printf 'poolSize: 3\nagentConfigs:\n  coder: {memory: 64m}\n  tester:\n    memory: much\n' >"$DAEMON_CONFIG"
    run warmpool reload
    [ "$status" = 125 ]
    [[ $output == *":5: "* ]]
    [[ $output == *memory* ]]
    [[ $output == *"nothing was changed"* ]]
    [ "$(pool_of coder .expiring)" = 0 ]
    [ "$(containers_of coder)" = "$before" ]
    rm "$DAEMON_CONFIG"
    run warmpool reload
    [ "$status" = 125 ]
    [[ $output == *"cannot be opened"* ]]
    [ "$(wp_run coder -- echo on)" = on ]
}

@test "a key that cannot change while the daemon runs is refused by name, with both values" {
    printf 'orphanTimeout: 11m\npoolSize: 2\n' >"$DAEMON_CONFIG"
    run warmpool reload
    [ "$status" = 125 ]
    [[ $output == *orphanTimeout* ]]
    [[ $output == *"restart it"* ]]
}

@test "SIGHUP reads the configuration too; sizes and new types take effect at once" {
    printf 'agentConfigs:\n  coder: {memory: 256m, poolSize: 3}\n  added: {image: "warmpool-agent:latest", environment: {ADDED: "yes"}}\n' >"$DAEMON_CONFIG"
    kill -HUP "$DAEMON_PID"
    three() { [ "$(pool_of coder .idle)" = 3 ]; }
    eventually 20 three
    [ "$(wp_run added -- sh -c 'echo $ADDED')" = yes ]
}

@test "a container that dies idle costs no task: it is tried again elsewhere" {
    warmpool warm coder 2
    for _ in 1 2 3 4 5; do
        eventually 10 test "$(pool_of coder .idle)" -ge 1
        kill -STOP "$DAEMON_PID"
        for pid in $(docker inspect --format '{{.State.Pid}}' $(docker ps -q --filter "label=$LABEL=$INSTANCE" --filter label=io.warmpool.type=coder)); do
            kill -9 "$pid"
        done
        wp_run coder -- echo fine >"$BATS_TEST_TMPDIR/out" &
        sleep 0.1
        kill -CONT "$DAEMON_PID"
        wait $!
        [ "$(cat "$BATS_TEST_TMPDIR/out")" = fine ]
    done
}

@test "a task whose container dies is lost and says so; an idempotent one runs again" {
    warmpool warm coder 2
    die() { # while a task runs
        running() { [ "$(pool_of coder .busy)" = 1 ]; }
        eventually 5 running
        docker kill "$(warmpool ps --json | jq -r '.[] | select(.agentType == "coder" and .state == "busy") | .containerId')" >/dev/null
    }
    wp_run coder --json -- sleep 3 >"$BATS_TEST_TMPDIR/lost" &
    task=$!
    die
    status=0
    wait $task || status=$?
    [ $status = 125 ]
    [ "$(jq -r .outcome "$BATS_TEST_TMPDIR/lost")" = lost ]
    eventually 20 pool_settles coder 2
    wp_run coder --json --idempotent -- sh -c 'sleep 1; echo twice' >"$BATS_TEST_TMPDIR/again" &
    task=$!
    die
    wait $task
    [ "$(jq -r .output "$BATS_TEST_TMPDIR/again")" = twice ]
    seen taskRetried '.reason | length > 5'
    retries=$(pool_of coder .retries)
    [ "$retries" -ge 1 ]
    eventually 20 pool_settles coder 2
    wp_run coder --json --idempotent --retry 0 -- sleep 3 >"$BATS_TEST_TMPDIR/none" &
    task=$!
    die
    status=0
    wait $task || status=$?
    [ $status = 125 ]
    [ "$(pool_of coder .retries)" = "$retries" ]
}

@test "creations that fail open the circuit; a waiting task ends at its deadline with the engine's own words" {
    begun=$(date +%s%N)
    run warmpool run bad --queue-timeout 3s -- true
    took=$((($(date +%s%N) - begun) / 1000000))
    [ "$status" = 125 ]
    [[ $output == *"no container within"* ]]
    [[ $output == *NONSENSE* || $output == *seccomp* ]]
    [ $took -ge 2900 ]
    open() { [ "$(pool_of bad .circuit)" = open ]; }
    eventually 30 open
    [[ $(warmpool status) == *seccomp* || $(warmpool status) == *NONSENSE* ]]
    seen circuitOpened '.agentType == "bad" and .failures == 5 and (.reason | length) > 10'
}

@test "of a queue the urgent come first, each priority in its order" {
    warmpool warm tester 1
    warmpool scale tester 1
    wp_run tester -- sleep 1 &
    sleep 0.3
    n=0
    for priority in background low normal high critical normal; do
        n=$((n + 1))
        (wp_run tester --priority $priority -- true && echo "$priority$n" >>"$BATS_TEST_TMPDIR/order") &
        sleep 0.1
    done
    wait
    # each writes its line after its end: the next one has begun by then, but not ended before it
    [ "$(sort "$BATS_TEST_TMPDIR/order" | wc -l)" = 6 ]
    [ "$(head -1 "$BATS_TEST_TMPDIR/order")" = critical5 ]
    [ "$(tail -1 "$BATS_TEST_TMPDIR/order")" = background1 ]
    warmpool scale tester auto
}

@test "down waits for running tasks up to its deadline, then ends them and leaves nothing" {
    other=$(mktemp -d "$BATS_TEST_TMPDIR/otherXXXX")
    o() { "$BUILD/warmpool" --socket "$other/s" "$@"; }
    o up --set stateDir="$other/state" --set warmupAgentTypes=coder --set poolSize=1 >/dev/null 2>&1
    o run coder -- sh -c 'sleep 1; echo whole' >"$other/out" 3>&- &
    task=$!
    sleep 0.3
    timeout 60 "$BUILD/warmpool" --socket "$other/s" down 2>/dev/null
    wait $task
    [ "$(cat "$other/out")" = whole ]
    o up --set stateDir="$other/state" --set warmupAgentTypes=coder --set poolSize=1 >/dev/null 2>&1
    o run coder -- sleep 1000 3>&- &
    task=$!
    sleep 0.3
    run timeout 60 "$BUILD/warmpool" --socket "$other/s" down --timeout 1s
    [ "$status" = 0 ]
    [[ $output == *"they are ended now"* ]]
    status=0
    wait $task || status=$?
    [ $status = 130 ]
    run "$BUILD/warmpool" --socket "$other/s" down --timeout soon
    [ "$status" = 125 ]
}
