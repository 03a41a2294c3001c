#!/usr/bin/env bats
# Engines that are not here, played by a proxy before the real one: of other API versions, slow, and broken.

load helper

setup() {
    DOUBLE=$BATS_TEST_TMPDIR/engine.sock
    DOUBLE_LOG=$BATS_TEST_TMPDIR/requests
}

teardown() {
    [ -n "${BATS_TEST_COMPLETED:-}" ] || [ ! -e "${DAEMON_LOG:-}" ] || tail -n 40 "$DAEMON_LOG" >&2
    [ -z "${DAEMON_PID:-}" ] || ! kill -0 "$DAEMON_PID" 2>/dev/null || daemon_finish
    double_stop
}

double_start() { # ARGUMENTS...
    "$BUILD/tests/doubles/engine-double" --listen "$DOUBLE" "$@" >>"$DOUBLE_LOG" 2>&1 3>&- &
    DOUBLE_PID=$!
    disown
    eventually 10 test -S "$DOUBLE"
}

double_stop() {
    [ -z "${DOUBLE_PID:-}" ] || kill -TERM "$DOUBLE_PID" 2>/dev/null || true
    DOUBLE_PID=
}

conformance() {
    run env -u DOCKER_CERT_PATH DOCKER_HOST="unix://$DOUBLE" "$BUILD/tests/engine/engine-conformance"
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"OK ] test_networks"* && $output == *"OK ] test_outage"* && $output == *"OK ] test_bytes"* ]]
    [[ $output != *SKIPPED* ]]
}

asked() { # asked VERSION: what the double answers to a question in that version of the API
    curl -s --unix-socket "$DOUBLE" "http://engine/v$1/info"
}

@test "an engine of API 1.44 to 1.51, as Docker 29: refuses older clients, passes the conformance suite" {
    double_start --speak 1.44-1.51
    [ "$(asked 1.43 | jq -r .message)" = "client version 1.43 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version" ]
    [ "$(asked 1.52 | jq -r .message)" = "client version 1.52 is too new. Maximum supported API version is 1.51" ]
    [ "$(asked 1.44 | jq -r .ID)" != null ]
    conformance
}

@test "an engine of API 1.12 to 1.41: refuses newer clients, passes the conformance suite" {
    double_start --speak 1.12-1.41
    [ "$(asked 1.47 | jq -r .message)" = "client version 1.47 is too new. Maximum supported API version is 1.41" ]
    [ "$(asked 1.41 | jq -r .ID)" != null ]
    conformance
}

# A day in a daemon's life, at an engine of other versions.
lives() { # RANGE VERSION
    double_start --speak "$1"
    daemon_start "dockerHost=unix://$DOUBLE" poolSize=2
    [ "$(warmpool status --json | jq -r .engine.apiVersion)" = "$2" ]
    [ "$(wp_run coder -- sh -c 'echo residue >/workspace/x; cat /workspace/x')" = residue ]
    [ "$(wp_run coder -- sh -c 'ls -A /workspace')" = "" ]
    echo in >"$BATS_TEST_TMPDIR/in"
    wp_run coder --copy-in "$BATS_TEST_TMPDIR/in:in" --copy-out "out:$BATS_TEST_TMPDIR/out" -- sh -c 'cat in in >out'
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = $'in\nin' ]
    warmpool scale coder 3
    eventually 30 pool_settles coder 3
    eventually 20 audit_holds
    # A container that somebody takes away is missed and replaced: events and lists are understood.
    docker rm -fv "$(docker ps -q --filter "label=$LABEL=$INSTANCE" | head -n 1)" >/dev/null
    eventually 30 pool_settles coder 3
    eventually 20 audit_holds
    run ! grep -q " 400$" "$DOUBLE_LOG" # nothing was refused
    daemon_finish
}

@test "a daemon at an engine of API 1.44 to 1.51" {
    lives 1.44-1.51 1.47
}

@test "a daemon at an engine of API 1.12 to 1.41" {
    lives 1.12-1.41 1.41
}

@test "a daemon at an engine of API 1.44 to 1.51, over attach streams" {
    TRANSPORT=attach lives 1.44-1.51 1.47
}

@test "an engine that speaks no version of ours: the daemon says which" {
    double_start --speak 1.48-1.60
    run env WARMPOOL_CONFIG=/dev/null "$BUILD/warmpoold" doctor --set dockerHost="unix://$DOUBLE" --set stateDir="$BATS_TEST_TMPDIR/state"
    [ "$status" != 0 ]
    [[ $output == *"asks for API version 1.48 or newer, this warmpool speaks up to 1.47: upgrade warmpool"* ]]
}

@test "a slow engine: pools warm, and no task waits for it" {
    double_start --slow 400
    daemon_start "dockerHost=unix://$DOUBLE" poolSize=2
    eventually 60 pool_settles coder 2
    local before
    before=$(wc -l <"$DOUBLE_LOG")
    for i in $(seq 20); do
        [ "$(wp_run coder -- echo "$i")" = "$i" ]
    done
    [ "$(wc -l <"$DOUBLE_LOG")" -lt $((before + 20)) ]
    daemon_finish
}

# An engine that once does not answer as it should, for the container that the pool makes second, while a task runs in the
# first one. The engine did what it was asked for, only nobody heard so.
breaks() { # FAULT N MATCH
    double_start "$1" "$2" --match "$3"
    daemon_start "dockerHost=unix://$DOUBLE" poolSize=1
    warmpool run coder -- sh -c 'while [ ! -e /workspace/go ]; do sleep 0.1; done; echo undisturbed' >"$BATS_TEST_TMPDIR/task" </dev/null &
    TASK=$!
    eventually 20 a_process_with /workspace/go
    warmpool scale coder 2 >/dev/null
}

one_busy_one_idle() {
    [ "$(pool_of coder '[.busy, .idle, .creating] | @tsv')" = "1	1	0" ]
}

recovers() { # SECONDS WORDS: in which the daemon says WORDS of it
    local left=0
    eventually "$1" grep -qF -- "$2" "$DAEMON_LOG" || left=1
    eventually 60 one_busy_one_idle || left=1
    docker exec "$(api GET /v1/containers | jq -r '.[] | select(.state == "busy") | .containerId')" touch /workspace/go
    wait "$TASK"
    [ $left = 0 ] || { cat "$DOUBLE_LOG"; pool_of coder .; return 1; }
    [ "$(cat "$BATS_TEST_TMPDIR/task")" = undisturbed ]
    eventually 20 pool_settles coder 2
    [ "$(wp_run coder -- echo "as ever")" = "as ever" ]
    eventually 60 audit_holds
    daemon_finish
}

@test "garbage for an answer to create" {
    breaks --garbage 2 "POST /containers/create"
    recovers 20 "engine.sock does not speak HTTP"
}

@test "half an answer to create" {
    breaks --half 2 "POST /containers/create"
    recovers 20 "engine.sock broke: transfer closed with"
}

@test "no answer to create" {
    breaks --hang 2 "POST /containers/create"
    recovers 90 "gave no answer within 60000 ms"
}

@test "garbage for an answer to start" {
    breaks --garbage 4 "POST /containers/"
    recovers 20 "engine.sock does not speak HTTP"
}

@test "half an answer to a look at a container" {
    breaks --half 2 "GET /containers/"
    recovers 20 "engine.sock broke: transfer closed with"
}
