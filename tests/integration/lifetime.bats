# What time does to pools: containers age out under load, the wall clock jumps, the engine hangs, containers are killed in every state,
# sizes follow demand. `SOAK=1` takes the long forms.
load helper

# other KEY=VALUE...: a daemon of this test's own.
other() {
    OTHER=$(mktemp -d "$BATS_TEST_TMPDIR/otherXXXX")
    local settings=() one
    for one in stateDir="$OTHER/state" warmupAgentTypes=coder transport="${TRANSPORT:-auto}" "$@"; do settings+=(--set "$one"); done
    "$BUILD/warmpoold" serve --socket "$OTHER/s" "${settings[@]}" >"$OTHER/log" 2>&1 </dev/null 3>&- &
    OTHER_PID=$!
    eventually 30 other_ready || { cat "$OTHER/log" && return 1; }
}
other_ready() { curl -sf --unix-socket "$OTHER/s" http://w/readyz >/dev/null; }
o() { "$BUILD/warmpool" --socket "$OTHER/s" "$@"; }
o_pool() { o status --json | jq -r --arg type "$1" ".pools[] | select(.agentType == \$type) | $2"; }
o_containers() { o ps --json | jq -r '[.[].containerName] | sort | join(" ")'; }

teardown() {
    [ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 40 "$OTHER/log" >&2
    timeout 60 "$BUILD/warmpool" --socket "$OTHER/s" down >/dev/null 2>&1
    ! kill -0 "$OTHER_PID" 2>/dev/null || eventually 10 eval '! kill -0 $OTHER_PID 2>/dev/null' || kill -9 "$OTHER_PID"
    instance=$(cat "$OTHER/state/instance" 2>/dev/null || true)
    [ -z "$instance" ] || [ -z "$(docker ps -aq --filter "label=$LABEL=$instance")" ]
}

# load SECONDS STREAMS: tasks one after the other in each stream; what fails is noted.
load_of() {
    local until=$((SECONDS + $1)) stream
    LOAD=()
    for stream in $(seq "$2"); do
        (while [ $SECONDS -lt $until ]; do o run coder -- true || echo "failed $?" >>"$OTHER/failed"; echo >>"$OTHER/ran.$stream"; done) 3>&- &
        LOAD+=($!)
    done
}

@test "full load while containers age out every few seconds: no task fails, never fewer than the minimum" {
    other poolSize=3 minPoolSize=3 maxPoolSize=3 maxContainerAge=2s autoScaling=false
    load_of $([ -n "${SOAK:-}" ] && echo 60 || echo 12) 3
    least=99
    while kill -0 "${LOAD[0]}" 2>/dev/null; do
        serving=$(o_pool coder '.idle + .busy + .resetting')
        [ "$serving" -ge $least ] || least=$serving
        sleep 0.05
    done
    [ ! -e "$OTHER/failed" ]
    [ "$least" -ge 3 ]
    [ "$(o_pool coder .created)" -ge 12 ]
    [ "$(cat "$OTHER"/ran.* | wc -l)" -ge 100 ]
}

@test "the wall clock jumps a year, both ways: nothing expires, nothing is checked too often, tasks and leases go on" {
    library=$(dpkg -L libfaketime | grep 'libfaketimeMT.so.1$')
    echo +0 >"$BATS_TEST_TMPDIR/clock"
    export LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$BATS_TEST_TMPDIR/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
        DONT_FAKE_MONOTONIC=1
    other poolSize=2 minPoolSize=2 maxContainerAge=1h containerIdleTimeout=30m
    unset LD_PRELOAD FAKETIME_TIMESTAMP_FILE FAKETIME_NO_CACHE FAKETIME_DONT_FAKE_MONOTONIC DONT_FAKE_MONOTONIC
    before=$(o_containers)
    lease=$(o lease coder --ttl 5m)
    year() { o ps --json | jq -r '.[0].createdAt[:4]'; }
    for shift in +365d -365d +0; do
        echo "$shift" >"$BATS_TEST_TMPDIR/clock"
        sleep 1.5
        [ "$(o run coder -- echo on)" = on ]
        [ "$(o exec "$lease" -- echo held)" = held ]
        [ "$(o_containers)" = "$before" ]
        [ "$(o events --json --since x-0 -n 1 2>/dev/null | head -1 | jq -r '.type')" = gap ]
        stamp=$(timeout 1 "$BUILD/warmpool" --socket "$OTHER/s" events --json -n 1 --type taskEnded & sleep 0.3; o run coder -- true; wait)
        [ "$(jq -r '.time[:4]' <<<"$stamp")" = "$(date -u -d "${shift/d/ days}" +%Y 2>/dev/null || date -u +%Y)" ] || [ "$shift" = +0 ]
    done
}

@test "the engine hangs: warm containers serve on, what needs the engine waits, and all recovers" {
    mkdir -p "$BATS_TEST_TMPDIR/hang"
    engine=$BATS_TEST_TMPDIR/hang/engine.sock
    socat "UNIX-LISTEN:$engine,fork" UNIX-CONNECT:/var/run/docker.sock 3>&- &
    relay=$!
    eventually 5 test -S "$engine"
    TRANSPORT=socket other poolSize=2 minPoolSize=2 maxPoolSize=4 autoScaling=false dockerHost="unix://$engine" || { kill $relay; return 1; }
    kill -STOP $relay $(pgrep -P $relay)
    sleep 1
    failed=0 tasks=()
    for _ in 1 2 3; do [ "$(o run coder -- echo warm)" = warm ] || failed=1; done
    run o run fresh-type --queue-timeout 2s -- true
    [ "$status" = 125 ] || failed=2
    sleep $([ -n "${SOAK:-}" ] && echo 60 || echo 8)
    [ "$(o run coder -- echo still)" = still ] || failed=3
    kill -CONT $relay $(pgrep -P $relay)
    grows() { [ "$(o_pool coder .total)" -ge 3 ]; }
    for _ in 1 2 3; do
        o run coder -- sleep 3 3>&- &
        tasks+=($!)
    done
    eventually 40 grows || failed=4
    wait "${tasks[@]}" || failed=5
    [ $failed = 0 ] || echo "failed at $failed" >&2
    timeout 60 "$BUILD/warmpool" --socket "$OTHER/s" down >/dev/null 2>&1 || failed=6
    kill $relay
    [ $failed = 0 ]
}

@test "containers are killed idle, busy and resetting: each is replaced, no other task is hurt" {
    other poolSize=3 minPoolSize=3 maxPoolSize=3 autoScaling=false
    load_of 8 2
    for _ in $(seq 10); do
        victim=$(o ps --json | jq -r '.[].containerId' | shuf -n 1)
        [ -z "$victim" ] || docker kill "$victim" >/dev/null 2>&1 || true
        sleep 0.7
    done
    wait "${LOAD[@]}"
    # A task whose own container was killed in the middle of it is lost, and says so; no other fails.
    [ ! -e "$OTHER/failed" ] || [ "$(wc -l <"$OTHER/failed")" -le 10 ]
    whole() { [ "$(o_pool coder '[.idle, .unhealthy] | @tsv')" = $'3\t0' ]; }
    eventually 20 whole
    [ "$(o run coder -- echo well)" = well ]
}

@test "predictive scaling: a burst that comes again finds its containers, and silence gives them back" {
    other poolSize=1 minPoolSize=1 maxPoolSize=6 scaleCooldown=2s
    burst() {
        local tasks=()
        for _ in 1 2 3 4 5; do
            o run coder --json -- sleep 0.5 >>"$OTHER/burst.$1" 3>&- &
            tasks+=($!)
        done
        wait "${tasks[@]}"
    }
    burst 1
    sleep 4
    burst 2
    [ "$(jq -s '[.[] | select(.hit)] | length' "$OTHER/burst.1")" -lt 5 ]
    [ "$(jq -s '[.[] | select(.hit)] | length' "$OTHER/burst.2")" = 5 ]
    grep -q 'scaled from' "$OTHER/log"
}

@test "threshold scaling follows utilisation" {
    other poolSize=2 minPoolSize=1 maxPoolSize=3 scalingPolicy=threshold scalingInterval=1s scaleCooldown=1s
    less() { [ "$(o_pool coder .target)" = 1 ]; }
    eventually 15 less
    grep -q 'utilisation was 0 %' "$OTHER/log"
    o run coder -- sleep 6 &
    more() { [ "$(o_pool coder .target)" -ge 2 ]; }
    eventually 10 more
    wait $!
}

@test "memoryBudget: the containers' limits together stay within it" {
    other poolSize=1 maxPoolSize=5 memoryBudget=600m agentConfigs.coder.memory=256m autoScaling=false
    for _ in 1 2 3 4; do o run coder -- sleep 1 3>&- & done
    last=$!
    most=0
    while kill -0 $last 2>/dev/null; do
        now=$(o_pool coder '.total + .retiring')
        [ "$now" -le $most ] || most=$now
        sleep 0.05
    done
    [ $most = 2 ]
    run "$BUILD/warmpool" config check /dev/stdin <<<"memoryBudget: 100m"
    [ "$status" != 0 ]
    [[ $output == *memoryBudget* ]]
}

@test "an image that is retagged between two creations: the pool goes on with the one it began with" {
    docker tag warmpool-agent:latest wp-test-retag:latest
    other poolSize=1 maxPoolSize=3 dockerImage=wp-test-retag:latest autoScaling=false
    first=$(docker inspect --format '{{.Image}}' "$(o ps --json | jq -r '.[0].containerId')")
    docker rmi wp-test-retag:latest >/dev/null
    echo 'FROM warmpool-agent:latest
LABEL other=true' | docker build -q -t wp-test-retag:latest - >/dev/null
    o warm coder 2
    images=$(docker inspect --format '{{.Image}}' $(o ps --json | jq -r '.[].containerId') | sort -u)
    docker rmi -f wp-test-retag:latest >/dev/null
    [ "$images" = "$first" ]
}

@test "a container that does not answer is out of service, said so, and replaced; the rest serves on" {
    other poolSize=2 minPoolSize=2 maxPoolSize=3 autoScaling=false healthCheckInterval=500ms
    sick=$(o ps --json | jq -r '.[0].containerName')
    docker pause "$sick" >/dev/null
    unhealthy() { { timeout 1 "$BUILD/warmpool" --socket "$OTHER/s" events --json --since x-0 --type containerUnhealthy || true; } 2>/dev/null | grep -q "$sick"; }
    eventually 20 unhealthy
    [ "$(o run coder -- echo well)" = well ]
    docker unpause "$sick" >/dev/null 2>&1 || true
    whole() { [ "$(o_pool coder '[.idle, .unhealthy] | @tsv')" = $'2\t0' ] && [[ $(o_containers) != *"$sick"* ]]; }
    eventually 20 whole
}
