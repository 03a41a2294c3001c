# Events: each kind is seen with its fields, by several readers; a slow one is cut off and disturbs nobody; a reader goes on where it
# was.
load helper

setup_file() {
    daemon_start poolSize=1 maxPoolSize=4
    # Nothing of this type ever happens: what comes shows that somebody is there.
    curl --silent -N --max-time 120 --unix-socket "$SOCKET" 'http://warmpool/v1/events?type=leaseOverdue' >"$PLACE/silent" 3>&- &
    export SILENT=$!
}
teardown_file() {
    kill "$SILENT" 2>/dev/null || true
    daemon_finish
}
teardown() {
    local failed=0
    other_down || failed=1
    relay_ends
    audit && [ $failed = 0 ]
}
relay_ends() { # with the connections that are open
    [ -z "${RELAY:-}" ] || kill $(pgrep -P "$RELAY") "$RELAY" 2>/dev/null || true
    RELAY=
}

# other KEY=VALUE...: a second daemon, reached by `o`.
other() {
    OTHER=$(mktemp -d "$BATS_TEST_TMPDIR/otherXXXX")
    local settings=() one
    for one in stateDir="$OTHER/state" warmupAgentTypes=coder poolSize=1 transport="${TRANSPORT:-auto}" killTimeout=500ms "$@"; do
        settings+=(--set "$one")
    done
    WARMPOOL_CONFIG=${OTHER_CONFIG:-/dev/null} "$BUILD/warmpoold" serve --socket "$OTHER/s" "${settings[@]}" >"$OTHER/log" 2>&1 </dev/null 3>&- &
    OTHER_PID=$!
    eventually 30 other_ready
}
other_ready() { curl -sf --unix-socket "$OTHER/s" http://w/readyz >/dev/null; }
other_gone() { ! kill -0 "$OTHER_PID" 2>/dev/null; }
o() { "$BUILD/warmpool" --socket "$OTHER/s" "$@"; }
o_follow() {
    o events --json "$@" >"$OTHER/e" 2>"$OTHER/e.err" 3>&- &
    FOLLOWER=$!
    sleep 0.3
}
other_down() {
    [ -n "${OTHER_PID:-}" ] || return 0
    [ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 40 "$OTHER/log" >&2
    timeout 60 "$BUILD/warmpool" --socket "$OTHER/s" down >/dev/null 2>&1 || true
    eventually 20 other_gone || kill -KILL "$OTHER_PID"
    local instance
    instance=$(cat "$OTHER/state/instance" 2>/dev/null) || return 0
    [ -n "$(instance_objects "$instance")" ] || return 0
    instance_objects "$instance" >&2
    remove_objects "$instance"
    return 1
}

# follow FILE [OPTIONS]: a reader in the background, there before this returns.
follow() {
    local file=$1
    shift
    "$BUILD/warmpool" --socket "$SOCKET" events --json "$@" >"$file" 2>"$file.err" 3>&- &
    FOLLOWER=$!
    sleep 0.3
}
has() { # FILE JQ-CONDITION
    jq -e -s "any(.[]; $2)" "$1" >/dev/null 2>&1
}
in_time() { eventually 10 has "$@"; }

@test "tasks: queued, started, ended, with container, outcome and code" {
    follow "$BATS_TEST_TMPDIR/e"
    warmpool scale coder 1
    wp_run coder --id first -- sleep 0.5 &
    sleep 0.2
    run wp_run coder --id second -- sh -c 'exit 7'
    [ "$status" = 7 ]
    wait -n
    name=$(warmpool ps --json | jq -r '.[0].containerName')
    in_time "$BATS_TEST_TMPDIR/e" '.type == "taskEnded" and .taskId == "second" and .exitCode == 7 and .outcome == "exited" and .container == "'"$name"'"'
    has "$BATS_TEST_TMPDIR/e" '.type == "taskQueued" and .taskId == "second" and .waiting == 1 and .agentType == "coder"'
    has "$BATS_TEST_TMPDIR/e" '.type == "taskStarted" and .taskId == "second"'
    ! has "$BATS_TEST_TMPDIR/e" '.type == "taskQueued" and .taskId == "first"'
    [ "$(jq -r 'select(.taskId == "second") | .type' "$BATS_TEST_TMPDIR/e" | tr '\n' ' ')" = "taskQueued taskStarted taskEnded " ]
    kill $FOLLOWER
    warmpool scale coder auto
}

@test "containers: created, refreshed, removed with the reason" {
    follow "$BATS_TEST_TMPDIR/e"
    old=$(warmpool ps --json | jq -r '.[] | select(.agentType == "coder") | .containerName' | head -1)
    warmpool refresh "$old"
    in_time "$BATS_TEST_TMPDIR/e" '.type == "containerCreated" and .createMs > 0'
    in_time "$BATS_TEST_TMPDIR/e" '.type == "containerRefreshed" and .container == "'"$old"'"'
    in_time "$BATS_TEST_TMPDIR/e" '.type == "containerRemoved" and .container == "'"$old"'" and .reason == "replaced"'
    victim=$(warmpool ps --json | jq -r '.[] | select(.agentType == "coder") | .containerName' | head -1)
    docker kill "$victim" >/dev/null
    in_time "$BATS_TEST_TMPDIR/e" '.type == "containerRemoved" and .container == "'"$victim"'" and (.reason | length) > 5'
    kill $FOLLOWER
}

@test "pools: scaled from, to and why; paused, resumed, drained; leases; the configuration" {
    follow "$BATS_TEST_TMPDIR/e"
    warmpool scale coder 2
    warmpool scale coder auto
    warmpool pause coder
    warmpool resume coder
    id=$(warmpool lease coder)
    warmpool release "$id"
    warmpool reload
    warmpool drain coder
    warmpool resume coder
    in_time "$BATS_TEST_TMPDIR/e" '.type == "poolDrained" and .agentType == "coder"'
    has "$BATS_TEST_TMPDIR/e" '.type == "poolScaled" and .to == 2 and (.why | contains("pinned"))'
    has "$BATS_TEST_TMPDIR/e" '.type == "poolPaused"'
    has "$BATS_TEST_TMPDIR/e" '.type == "poolResumed"'
    has "$BATS_TEST_TMPDIR/e" '.type == "leaseTaken" and .leaseId == "'"$id"'"'
    has "$BATS_TEST_TMPDIR/e" '.type == "leaseEnded" and .leaseId == "'"$id"'" and .reason == "it was released"'
    has "$BATS_TEST_TMPDIR/e" '.type == "configReloaded" and .changed == 0'
    kill $FOLLOWER
}

@test "ids go up by one; a reader goes on exactly after the one it names" {
    follow "$BATS_TEST_TMPDIR/e"
    for _ in 1 2 3 4 5; do wp_run coder -- true; done
    ended() { [ "$(jq -s '[.[] | select(.type == "taskEnded")] | length' "$BATS_TEST_TMPDIR/e")" = 5 ]; }
    eventually 5 ended
    kill $FOLLOWER
    [ "$(jq -s 'map(.id | split("-")[1] | tonumber) | . == [range(.[0]; .[0] + length)]' "$BATS_TEST_TMPDIR/e")" = true ]
    third=$(jq -r .id "$BATS_TEST_TMPDIR/e" | sed -n 3p)
    fourth=$(sed -n 4p "$BATS_TEST_TMPDIR/e")
    [ "$(warmpool events --json --since "$third" -n 1)" = "$fourth" ]
    [ "$(api GET /v1/events -N -H "Last-Event-ID: $third" --max-time 1 2>/dev/null | grep '^data: ' | head -1)" = "data: $fourth" ]
    api GET "/v1/events?since=$third" -N --max-time 1 2>/dev/null | grep -q "^id: $(jq -r .id <<<"$fourth")$"
}

@test "an id of another run gives a gap and then all that is kept" {
    api GET /v1/events -N -H "Last-Event-ID: 00000000-3" --max-time 1 2>/dev/null >"$BATS_TEST_TMPDIR/gap" || true
    grep '^data: ' "$BATS_TEST_TMPDIR/gap" | head -1 | grep -q '"type":"gap"'
    grep -q '"type":"taskEnded"' "$BATS_TEST_TMPDIR/gap"
}

@test "filters" {
    follow "$BATS_TEST_TMPDIR/e" --type taskEnded --agent-type tester
    wp_run coder -- true
    wp_run tester -- true
    in_time "$BATS_TEST_TMPDIR/e" '.type == "taskEnded"'
    sleep 0.2
    kill $FOLLOWER
    [ "$(jq -r '[.type, .agentType] | @tsv' "$BATS_TEST_TMPDIR/e")" = $'taskEnded\ttester' ]
    run warmpool events --type nonsense
    [ "$status" = 125 ]
    [ "$(api GET '/v1/events?type=x' -o /dev/null -w '%{http_code}')" = 400 ]
}

@test "why a pool was scaled: waiting tasks, an operator, idle time, utilisation" {
    other autoScaling=true scalingPolicy=threshold scalingInterval=500ms scaleCooldown=0 minPoolSize=1 maxPoolSize=4 containerIdleTimeout=2s
    o_follow --type poolScaled
    scaled() { in_time "$OTHER/e" '.agentType == "coder" and .from '"$1"' .to and (.why | test("'"$2"'"))'; }
    o run coder -- sleep 1 3>&- &
    o run coder -- sleep 1
    scaled '<' 'tasks waited'
    scaled '>' 'containerIdleTimeout|utilisation'
    o warm coder 3
    scaled '<' '3 warm containers were asked for'
    o scale coder 1
    scaled '>' 'pinned'
    o scale coder auto
    o run coder -- sleep 3
    scaled '<' 'utilisation was'
    # Each goes on where the one before ended.
    jq -e -s 'map(select(.agentType == "coder")) | [.[:-1], .[1:]] | transpose | all(.[]; .[0].to == .[1].from)' "$OTHER/e"
    kill $FOLLOWER
}

@test "what goes wrong: unhealthy, retried, overdue, a circuit, an engine that is away and comes back" {
    mkdir "$BATS_TEST_TMPDIR/relay"
    engine=$BATS_TEST_TMPDIR/relay/engine.sock
    relay() {
        socat "UNIX-LISTEN:$engine,fork" UNIX-CONNECT:/var/run/docker.sock >/dev/null 2>&1 3>&- &
        RELAY=$!
        eventually 5 test -S "$engine"
    }
    cat >"$BATS_TEST_TMPDIR/config" <<'END'
agentConfigs:
  broken: {image: "localhost:1/none", poolSize: 1}
END
    relay
    OTHER_CONFIG=$BATS_TEST_TMPDIR/config
    export OTHER_CONFIG
    other dockerHost="unix://$engine" healthCheckInterval=500ms leaseWarnAfter=500ms autoScaling=false transport=socket
    o_follow
    o run broken --queue-timeout 1s -- true 2>/dev/null 3>&- &

    victim=$(o ps --json | jq -c '.[] | select(.agentType == "coder")')
    kill -STOP "$(jq .pid <<<"$victim")"
    victim=$(jq .containerName <<<"$victim")
    eventually 15 has "$OTHER/e" '.type == "containerUnhealthy" and .container == '"$victim"' and .reason == "it does not answer"'
    eventually 15 has "$OTHER/e" '.type == "containerRemoved" and .container == '"$victim"

    lease=$(o lease coder)
    in_time "$OTHER/e" '.type == "leaseOverdue" and .leaseId == "'"$lease"'" and .heldMs >= 500 and (.container | length) > 5'
    o release "$lease"

    o run coder --id again --retry 1 --idempotent -- sleep 2 3>&- &
    runs() { name=$(o ps --json | jq -r '.[] | select(.currentTask == "again" or .isInUse) | .containerName') && [ -n "$name" ]; }
    eventually 10 runs
    docker kill "$name" >/dev/null
    eventually 15 has "$OTHER/e" '.type == "taskEnded" and .taskId == "again"'
    [ "$(jq -r 'select(.taskId == "again") | .type' "$OTHER/e" | sed '/taskQueued/d' | tr '\n' ' ')" = "taskStarted taskRetried taskStarted taskEnded " ]
    has "$OTHER/e" '.type == "taskEnded" and .taskId == "again" and .outcome == "exited" and .exitCode == 0'

    eventually 30 has "$OTHER/e" '.type == "circuitOpened" and .agentType == "broken" and .failures == 5 and (.reason | contains("localhost:1"))'
    has "$OTHER/e" '.type == "taskEnded" and .agentType == "broken" and .outcome == "rejected" and .container == null and .exitCode == null'
    sed -i 's/localhost:1.none/warmpool-agent/' "$OTHER_CONFIG"
    o reload
    in_time "$OTHER/e" '.type == "circuitClosed" and .agentType == "broken"'
    in_time "$OTHER/e" '.type == "configReloaded" and .changed == 1 and .rolled == 1'
    cp "$OTHER_CONFIG" "$OTHER/good"
    echo 'poolSize: none' >>"$OTHER_CONFIG"
    run ! o reload
    in_time "$OTHER/e" '.type == "configRejected" and (.reason | contains("poolSize"))'
    cp "$OTHER/good" "$OTHER_CONFIG"

    relay_ends
    rm -f "$engine"
    o refresh coder
    eventually 15 has "$OTHER/e" '.type == "engineDown" and (.reason | length) > 5'
    relay
    eventually 15 has "$OTHER/e" '.type == "engineUp"'
    kill $FOLLOWER
    other_down # which takes the engine
    OTHER_PID=
}

@test "a reader that does not read is cut off; the others miss nothing, tasks are as quick, the daemon's memory stays" {
    memory() { awk '/^Private_Dirty/ { sum += $2 } END { print sum }' "/proc/$DAEMON_PID/smaps_rollup"; }
    echo '{"agentType": "coder", "command": ["true"]}' >"$BATS_TEST_TMPDIR/task"
    run_tasks() { # N: prints the median in us
        timeout 60 curl --silent --unix-socket "$SOCKET" --data "@$BATS_TEST_TMPDIR/task" -o /dev/null -w '%{time_total}\n' \
            "http://warmpool/v1/tasks?[1-$1]" | sort -n | awk '{ t[NR] = $1 } END { print int(t[int(NR / 2)] * 1000000) }'
    }
    quiet=$(run_tasks 1000)
    follow "$BATS_TEST_TMPDIR/e" --type taskEnded
    first=$FOLLOWER
    follow "$BATS_TEST_TMPDIR/all"
    second=$FOLLOWER
    follow "$BATS_TEST_TMPDIR/slow"
    slow=$FOLLOWER
    kill -STOP $slow
    before=$(memory)
    watched=$(run_tasks 4000)
    eventually 30 grep -q "too slow and is cut off" "$DAEMON_LOG"
    after=$(memory)
    all() { [ "$(wc -l <"$BATS_TEST_TMPDIR/e")" = 4000 ] && [ "$(grep -c '"taskEnded"' "$BATS_TEST_TMPDIR/all")" = 4000 ]; }
    eventually 10 all
    contiguous() { # each is the one after the one before, or after a gap
        jq -e -s 'reduce .[] as $e ({ok: true}; if $e.type == "gap" then .last += $e.missed
            else ($e.id | split("-")[1] | tonumber) as $n | .ok = (.ok and (.last == null or .last + 1 == $n)) | .last = $n end) | .ok' "$1" >/dev/null
    }
    contiguous "$BATS_TEST_TMPDIR/all"
    ! grep -q '"gap"' "$BATS_TEST_TMPDIR/all"
    kill -CONT $slow
    last=$(tail -n 1 "$BATS_TEST_TMPDIR/all" | jq .id)
    in_time "$BATS_TEST_TMPDIR/slow" ".id == $last"
    grep -q '"gap"' "$BATS_TEST_TMPDIR/slow"
    contiguous "$BATS_TEST_TMPDIR/slow"
    grep -q 'the connection ended' "$BATS_TEST_TMPDIR/slow.err"
    kill $first $second $slow
    say "median of a task: $quiet us, with three readers $watched us; memory $before to $after KiB"
    [ $((after - before)) -lt 1024 ]
    [ "$watched" -lt $((quiet * 2 + 1000)) ]
}

@test "Ctrl-C ends it quietly, even while nobody takes its output; a filter that is not met shows nothing" {
    follow "$BATS_TEST_TMPDIR/e" --type poolDrained
    wp_run coder -- true
    kill -INT $FOLLOWER
    wait $FOLLOWER
    [ ! -s "$BATS_TEST_TMPDIR/e.err" ] && [ ! -s "$BATS_TEST_TMPDIR/e" ]
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    sleep 60 <"$BATS_TEST_TMPDIR/pipe" 3>&- &
    sleeper=$!
    "$BUILD/warmpool" --socket "$SOCKET" events --no-follow --json >"$BATS_TEST_TMPDIR/pipe" 3>&- & # more than a pipe holds
    stuck=$!
    sleep 0.5
    kill -0 $stuck
    kill -INT $stuck
    gone() { ! kill -0 $stuck 2>/dev/null; }
    eventually 2 gone
    wait $stuck
    kill $sleeper
}

@test "--no-follow shows what there is and ends; --since and -n choose; what cannot be written is said" {
    warmpool events --no-follow --json >"$BATS_TEST_TMPDIR/e"
    [ "$(wc -l <"$BATS_TEST_TMPDIR/e")" -gt 1000 ]
    jq -e -s 'all(.[]; .id)' "$BATS_TEST_TMPDIR/e" >/dev/null
    since=$(tail -n 3 "$BATS_TEST_TMPDIR/e" | head -n 1 | jq -r .id)
    [ "$(warmpool events --no-follow --json --since "$since" | head -n 2)" = "$(tail -n 2 "$BATS_TEST_TMPDIR/e")" ]
    [ "$(warmpool events --no-follow -n 7 | wc -l)" = 7 ]
    warmpool events --no-follow --type taskEnded -n 1 | grep -Eq '^20[0-9-]{8}T[0-9:]{8}\.[0-9]{3}  taskEnded +coder +taskId=[^ ]+  container=wp-[^ ]+  outcome=exited  exitCode=0  totalUs=[0-9]+$'
    run warmpool events --no-follow -n 1 --since 00000000-1
    [ "$status" = 0 ]
    [[ $output == *"some may be missing"* ]]
    run bash -c "'$BUILD/warmpool' --socket '$SOCKET' events --no-follow >/dev/full"
    [ "$status" = 125 ]
    [[ $output == *"cannot be written"* ]]
    for wrong in "-n x" "--since a/b" "extra" "--type nonsense"; do
        run warmpool events $wrong
        [ "$status" = 125 ]
    done
}

@test "a terminal takes no harm from texts; half an event is none; where it broke it goes on" {
    cat >"$BATS_TEST_TMPDIR/server" <<'END'
#!/bin/bash
while read -r line && [ "$line" != $'\r' ]; do echo "$line" >>"$ASKED"; done
printf 'HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n'
if [ "$(grep -c ^GET "$ASKED")" = 1 ]; then
    printf ':\nid: r-1\n\nid: r-2\nevent: containerRemoved\ndata: {"type":"containerRemoved","id":"r-2","reason":"\\u001b[2J\\u009b\\u0007\\nx\xc3\xbc"}\n\n'
    printf 'id: r-3\nevent: containerRemoved\ndata: {"type":"containerRemoved","id":"r-3"}\n'
else
    printf 'id: r-3\nevent: containerRemoved\ndata: {"type":"containerRemoved","id":"r-3"}\n\nevent: stopping\ndata: {"type":"stopping"}\n\n'
fi
END
    chmod +x "$BATS_TEST_TMPDIR/server"
    ASKED=$BATS_TEST_TMPDIR/asked socat "UNIX-LISTEN:$BATS_TEST_TMPDIR/s,fork" "EXEC:$BATS_TEST_TMPDIR/server" 3>&- &
    server=$!
    eventually 5 test -S "$BATS_TEST_TMPDIR/s"
    code=0
    timeout 10 "$BUILD/warmpool" --socket "$BATS_TEST_TMPDIR/s" events >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" || code=$?
    kill $server
    [ $code = 125 ]
    [ "$(wc -l <"$BATS_TEST_TMPDIR/out")" = 2 ]
    grep -q 'reason=?\[2J???xü$' "$BATS_TEST_TMPDIR/out"
    [ "$(LC_ALL=C grep -c '[[:cntrl:]]' "$BATS_TEST_TMPDIR/out")" = 0 ]
    [ "$(grep -i '^Last-Event-ID' "$BATS_TEST_TMPDIR/asked" | tr -d '\r')" = "Last-Event-ID: r-2" ]
    grep -q 'has stopped' "$BATS_TEST_TMPDIR/err"
}

@test "a daemon that stops, and one that is killed, is said" {
    other
    o_follow
    timeout 60 "$BUILD/warmpool" --socket "$OTHER/s" down >/dev/null 2>&1
    code=0
    wait $FOLLOWER || code=$?
    [ $code = 125 ]
    grep -q "has stopped" "$OTHER/e.err"
    has "$OTHER/e" '.type == "containerRemoved"'
    [ "$(tail -n 1 "$OTHER/e" | jq -r .type)" = stopping ]
    eventually 10 other_gone

    other
    o_follow
    kill -KILL "$OTHER_PID"
    code=0
    wait $FOLLOWER || code=$?
    [ $code = 125 ]
    grep -q "has gone" "$OTHER/e.err"
    instance=$(cat "$OTHER/state/instance")
    remove_objects "$instance" || true # what went with something else
    [ -z "$(instance_objects "$instance")" ]
    OTHER_PID=
}

@test "the stream ends with the daemon" {
    other=$(mktemp -d "$BATS_TEST_TMPDIR/otherXXXX")
    "$BUILD/warmpool" --socket "$other/s" up --set stateDir="$other/state" --set warmupAgentTypes=coder --set poolSize=1 >/dev/null 2>&1
    curl --silent -N --max-time 30 --unix-socket "$other/s" http://warmpool/v1/events >"$BATS_TEST_TMPDIR/last" 3>&- &
    reader=$!
    sleep 0.3
    timeout 30 "$BUILD/warmpool" --socket "$other/s" down >/dev/null 2>&1
    wait $reader
    grep -q '"type":"containerRemoved"' "$BATS_TEST_TMPDIR/last"
    tail -3 "$BATS_TEST_TMPDIR/last" | grep -q '"type":"stopping"'
}

@test "a silent stream says every 15 seconds that it is there, and where" {
    places() { [ "$(grep -c '^id: ' "$PLACE/silent")" -ge 2 ]; }
    eventually 20 places
    ! grep -q '^data' "$PLACE/silent"
    since=$(grep '^id: ' "$PLACE/silent" | tail -n 1)
    [ "$(api GET "/v1/events?follow=false&since=${since#id: }" | grep -c '"gap"')" = 0 ]
}

@test "each type is in docs/EVENTS.md" {
    names=$(sed -n 's/^ *\[EVENT_[A-Z_]*\] = {"\([a-zA-Z]*\)".*/\1/p' "$ROOT/src/telemetry/events.c")
    [ "$(wc -w <<<"$names")" -ge 20 ]
    for name in $names; do grep -q "\`$name\`" "$ROOT/docs/EVENTS.md" || { echo "$name" && false; }; done
}
