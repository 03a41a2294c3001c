# Events: each kind is seen with its fields, by several readers; a slow one is cut off and disturbs nobody; a reader goes on where it
# was.
load helper

setup_file() {
    daemon_start poolSize=1 maxPoolSize=4
}
teardown_file() { daemon_finish; }
teardown() { audit; }

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

@test "containers: created, refreshed, removed with the reason; unhealthy" {
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

@test "a reader that does not read is cut off; the others miss nothing, the daemon's memory stays" {
    memory() { awk '/^Private_Dirty/ { sum += $2 } END { print sum }' "/proc/$DAEMON_PID/smaps_rollup"; }
    follow "$BATS_TEST_TMPDIR/e" --type taskEnded
    "$BUILD/warmpool" --socket "$SOCKET" events --json >"$BATS_TEST_TMPDIR/slow" 2>"$BATS_TEST_TMPDIR/slow.err" 3>&- &
    slow=$!
    sleep 0.3
    kill -STOP $slow
    before=$(memory)
    echo '{"agentType": "coder", "command": ["true"]}' >"$BATS_TEST_TMPDIR/task"
    timeout 60 curl --silent --unix-socket "$SOCKET" --data "@$BATS_TEST_TMPDIR/task" -o /dev/null 'http://warmpool/v1/tasks?[1-4000]'
    eventually 30 grep -q "too slow and is cut off" "$DAEMON_LOG"
    after=$(memory)
    all() { [ "$(wc -l <"$BATS_TEST_TMPDIR/e")" = 4000 ]; }
    eventually 10 all
    kill -CONT $slow
    kill $slow 2>/dev/null || true
    kill $FOLLOWER
    [ "$(jq -s length "$BATS_TEST_TMPDIR/e")" = 4000 ]
    [ $((after - before)) -lt 2048 ]
}

@test "Ctrl-C ends it quietly; a daemon that stops is said" {
    follow "$BATS_TEST_TMPDIR/e"
    kill -INT $FOLLOWER
    wait $FOLLOWER
    [ ! -s "$BATS_TEST_TMPDIR/e.err" ]
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
