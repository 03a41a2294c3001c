# Malformed requests, a second daemon, a missing engine, an engine that stops, a missing image.
load helper

setup_file() { daemon_start strictAgentTypes=false; }
teardown_file() { daemon_finish; }
teardown() {
    [ -z "${OTHER_PID:-}" ] || kill -KILL "$OTHER_PID" 2>/dev/null || true
    audit
}

code_of() { # the HTTP status of POST /v1/tasks with this body
    api POST /v1/tasks --data-binary "$1" -o "$BATS_TEST_TMPDIR/answer" -w '%{http_code}'
}

@test "malformed JSON and wrong types: 400 with the place of what is wrong" {
    while read -r place body; do
        [ "$(code_of "$body")" = 400 ] || { echo "$body"; cat "$BATS_TEST_TMPDIR/answer"; return 1; }
        jq -e '.error | .code and .message' "$BATS_TEST_TMPDIR/answer" >/dev/null
        grep -qF -- "$place" "$BATS_TEST_TMPDIR/answer" || { echo "$body does not say $place"; cat "$BATS_TEST_TMPDIR/answer"; return 1; }
    done <<'END'
JSON {
JSON {"agentType": "coder", "command": ["true"]
JSON nonsense
$ []
JSON "text"
$.agentType {"command": ["true"]}
$.agentType {"agentType": 7, "command": ["true"]}
$.command {"agentType": "coder"}
$.command {"agentType": "coder", "command": "true"}
$.command {"agentType": "coder", "command": []}
$.command[1] {"agentType": "coder", "command": ["echo", 1]}
$.command[1] {"agentType": "coder", "command": ["echo", "a\u0000b"]}
$.env {"agentType": "coder", "command": ["true"], "env": []}
$.env {"agentType": "coder", "command": ["true"], "env": {"A=B": "x"}}
$.timeoutMs {"agentType": "coder", "command": ["true"], "timeoutMs": -1}
$.timeoutMs {"agentType": "coder", "command": ["true"], "timeoutMs": "soon"}
$.priority {"agentType": "coder", "command": ["true"], "priority": "urgent"}
$.unheardOf {"agentType": "coder", "command": ["true"], "unheardOf": 1}
$.stdin {"agentType": "coder", "command": ["true"], "stdin": "*", "stdinEncoding": "base64"}
END
    # Names of keys and types may be anything.
    [ "$(code_of '{"agentType": "../../etc", "command": ["true"]}')" = 400 ]
    deep=$(printf '[%.0s' $(seq 5000))
    [ "$(code_of "$deep")" = 400 ]
    wp_run coder -- true
}

@test "malformed HTTP is answered or hung up on, and the daemon goes on" {
    for text in 'nonsense\r\n\r\n' 'POST /v1/tasks HTTP/9.9\r\n\r\n' 'POST /v1/tasks HTTP/1.1\r\nContent-Length: -5\r\n\r\n' \
        'POST /v1/tasks HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n' '\0\0\0\0' \
        'POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'; do
        # shellcheck disable=SC2059
        printf "$text" | timeout 5 socat -t 1 - "UNIX-CONNECT:$SOCKET" >/dev/null || true
        [ "$(api GET /healthz | jq .ok)" = true ]
    done
    head -c 200000 /dev/urandom | timeout 5 socat -t 1 -u - "UNIX-CONNECT:$SOCKET" 2>/dev/null || true
    [ "$(api GET /healthz | jq .ok)" = true ]
    kill -0 "$DAEMON_PID"
}

@test "a body beyond the limit: 413" {
    head -c 20000000 /dev/zero | tr '\0' ' ' >"$BATS_TEST_TMPDIR/large"
    code=$(api POST /v1/tasks -H 'Expect:' --data-binary @"$BATS_TEST_TMPDIR/large" -o /dev/null -w '%{http_code}' || true)
    [ "$code" = 413 ]
    [ "$(api GET /healthz | jq .ok)" = true ]
}

@test "unknown paths and methods: 404, 405" {
    [ "$(api GET /v1/nothing -o /dev/null -w '%{http_code}')" = 404 ]
    [ "$(api GET /v1/tasks/none -o /dev/null -w '%{http_code}')" = 404 ]
    [ "$(api DELETE /v1/pools -o /dev/null -w '%{http_code}')" = 405 ]
    [ "$(api GET /v1/pools/never-seen -o /dev/null -w '%{http_code}')" = 404 ]
}

@test "a task definition needs the profile's command" {
    code=$(code_of '{"agentType": "coder", "task": {"id": "1", "description": "say hello"}}')
    [ "$code" = 422 ]
    jq -re .error.hint "$BATS_TEST_TMPDIR/answer" | grep -q command
}

@test "an id that is in use: 409" {
    api POST /v1/tasks -d '{"agentType": "coder", "command": ["sleep", "2"], "id": "twice"}' >/dev/null 3>&- &
    first=$!
    known() { [ "$(api GET /v1/tasks/twice -o /dev/null -w '%{http_code}')" = 200 ]; }
    eventually 5 known
    [ "$(code_of '{"agentType": "coder", "command": ["true"], "id": "twice"}')" = 409 ]
    wait $first
}

@test "a full queue: 429 with Retry-After" {
    other_daemon maxQueue=2 maxPoolSize=1
    body='{"agentType": "coder", "command": ["sleep", "3"]}'
    for _ in 1 2 3; do
        curl -s --unix-socket "$OTHER/api.sock" -d "$body" http://w/v1/tasks -o /dev/null 3>&- &
    done
    waiting() { [ "$(curl -s --unix-socket "$OTHER/api.sock" http://w/v1/pools/coder | jq .waiting)" = 2 ]; }
    eventually 5 waiting
    head=$(curl -s -i --unix-socket "$OTHER/api.sock" -d "$body" http://w/v1/tasks)
    wait $(jobs -p | grep -vx "$OTHER_PID") || true
    [[ "$head" == *" 429 "* ]]
    [[ "${head,,}" == *retry-after* ]]
    other_down
}

# A second daemon beside this file's.
other_daemon() { # SETTINGS
    OTHER=$BATS_TEST_TMPDIR/other
    mkdir -p "$OTHER"
    local settings=() one
    for one in poolSize=1 warmupAgentTypes=coder autoScaling=false "$@"; do settings+=(--set "$one"); done
    "$BUILD/warmpoold" serve --socket "$OTHER/api.sock" --set stateDir="$OTHER/state" "${settings[@]}" >"$OTHER/log" 2>&1 </dev/null 3>&- &
    OTHER_PID=$!
    eventually 30 other_answers || { cat "$OTHER/log"; return 1; }
}
other_answers() { [ "$(curl -s --unix-socket "$OTHER/api.sock" -o /dev/null -w '%{http_code}' http://w/readyz)" = "${OTHER_EXPECT:-200}" ]; }
other_gone() { ! kill -0 "$OTHER_PID" 2>/dev/null; }
other_down() {
    local instance
    instance=$(cat "$OTHER/state/instance")
    "$BUILD/warmpool" --socket "$OTHER/api.sock" down >/dev/null
    eventually 30 other_gone
    OTHER_PID=
    [ -z "$(instance_objects "$instance")" ] || { instance_objects "$instance"; remove_objects "$instance"; return 1; }
    [ ! -S "$OTHER/api.sock" ]
}

@test "a second daemon on the same state directory refuses" {
    run timeout 20 "$BUILD/warmpoold" serve --socket "$PLACE/second.sock" --set stateDir="$STATE"
    [ "$status" != 0 ] && [ "$status" != 124 ]
    [[ "$output" == *"$STATE"* ]]
    [ ! -e "$PLACE/second.sock" ]
    wp_run coder -- true
}

@test "a second daemon on the same socket refuses" {
    run timeout 20 "$BUILD/warmpoold" serve --socket "$SOCKET" --set stateDir="$PLACE/second"
    [ "$status" != 0 ] && [ "$status" != 124 ]
    [[ "$output" == *"$SOCKET"* ]]
    wp_run coder -- true
    [ "$(docker ps -aq --filter "label=$LABEL=$(cat "$PLACE/second/instance" 2>/dev/null || echo none)")" = "" ]
}

@test "up where a daemon answers says so and changes nothing" {
    pid=$(warmpool status --json | jq .pid)
    warmpool up
    [ "$(warmpool status --json | jq .pid)" = "$pid" ]
}

@test "two daemons live side by side" {
    other_daemon
    wp_run coder -- true
    "$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- true
    other_down
    wp_run coder -- true
}

@test "no engine: run says so with 125, the daemon lives, and recovers when the engine is there" {
    # A socket of our own stands for the engine, passed on to the true one when it is wanted.
    OTHER=$BATS_TEST_TMPDIR/other
    mkdir -p "$OTHER"
    "$BUILD/warmpoold" serve --socket "$OTHER/api.sock" --set stateDir="$OTHER/state" --set dockerHost="unix://$OTHER/engine.sock" \
        --set poolSize=1 --set warmupAgentTypes=coder >"$OTHER/log" 2>&1 </dev/null 3>&- &
    OTHER_PID=$!
    OTHER_EXPECT=503
    eventually 20 other_answers || { cat "$OTHER/log"; return 1; }
    curl -s --unix-socket "$OTHER/api.sock" http://w/v1/status | jq -e '.engine.up == false and (.engine.error | length > 0)'
    body='{"agentType": "coder", "command": ["true"], "queueTimeoutMs": 500}'
    [ "$(curl -s --unix-socket "$OTHER/api.sock" -d "$body" -o "$OTHER/answer" -w '%{http_code}' http://w/v1/tasks)" = 503 ]
    jq -re .error.message "$OTHER/answer"
    socat "UNIX-LISTEN:$OTHER/engine.sock,fork" UNIX-CONNECT:/var/run/docker.sock 3>&- &
    relay=$!
    OTHER_EXPECT=200
    recovered=0
    eventually 60 other_answers || recovered=1
    [ $recovered = 0 ] && "$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- true && other_down || recovered=1
    kill $relay
    [ $recovered = 0 ] || { cat "$OTHER/log"; return 1; }
}

@test "the engine stops answering while tasks run: they go on and end well" {
    OTHER=$BATS_TEST_TMPDIR/other
    mkdir -p "$OTHER"
    socat "UNIX-LISTEN:$OTHER/engine.sock,fork" UNIX-CONNECT:/var/run/docker.sock 3>&- &
    relay=$!
    other_daemon dockerHost="unix://$OTHER/engine.sock" || { kill $relay; return 1; }
    "$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- sh -c 'sleep 2; echo survived' >"$OTHER/out" 3>&- &
    task=$!
    sleep 0.5
    # The relay goes and everything that it forked for a connection.
    kill $(pgrep -P $relay) $relay 2>/dev/null || true
    rm -f "$OTHER/engine.sock"
    wait $task
    [ "$(cat "$OTHER/out")" = survived ]
    # The warm container serves on without an engine.
    [ "$("$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- echo still)" = still ]
    socat "UNIX-LISTEN:$OTHER/engine.sock,fork" UNIX-CONNECT:/var/run/docker.sock 3>&- &
    relay=$!
    engine_up() { curl -s --unix-socket "$OTHER/api.sock" http://w/v1/status | jq -e .engine.up >/dev/null; }
    ended=0
    eventually 40 engine_up && other_down || ended=1
    kill $relay
    [ $ended = 0 ] || { cat "$OTHER/log"; return 1; }
}

@test "an image that does not exist: the task says which, with the engine's words" {
    OTHER=$BATS_TEST_TMPDIR/other
    mkdir -p "$OTHER"
    "$BUILD/warmpoold" serve --socket "$OTHER/api.sock" --set stateDir="$OTHER/state" --set agentConfigs.odd.image=no-such-image:never \
        --set poolSize=1 --set warmupAgentTypes=coder >"$OTHER/log" 2>&1 </dev/null 3>&- &
    OTHER_PID=$!
    eventually 30 other_answers
    run timeout 70 "$BUILD/warmpool" --socket "$OTHER/api.sock" run odd -- true
    echo "$output"
    [ "$status" = 125 ]
    [[ "$output" == *no-such-image* ]]
    "$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- true
    other_down
}

@test "no daemon: run says how to start one, exit 125; other verbs too" {
    for verb in "run coder -- true" status ps "warm coder 1"; do
        # shellcheck disable=SC2086
        run "$BUILD/warmpool" --socket "$BATS_TEST_TMPDIR/nobody.sock" $verb
        [ "$status" = 125 ] || { echo "$verb: $status"; return 1; }
        [[ "$output" == *"warmpool up"* ]] || { echo "$verb: $output"; return 1; }
    done
}

@test "a stale socket of a dead daemon does not hinder the next one" {
    OTHER=$BATS_TEST_TMPDIR/other
    mkdir -p "$OTHER"
    socat "UNIX-LISTEN:$OTHER/api.sock,unlink-close=0" - </dev/null >/dev/null 2>&1 3>&- &
    listener=$!
    bound() { [ -S "$OTHER/api.sock" ]; }
    eventually 5 bound
    kill -KILL $listener
    wait $listener 2>/dev/null || true
    bound
    other_daemon
    other_down
}

@test "a configuration that is wrong names line, key and what is allowed, and nothing starts" {
    printf 'poolSize: 2\nautoScaling: true\npoolSizes: 3\n' >"$BATS_TEST_TMPDIR/unknown.yaml"
    run "$BUILD/warmpoold" serve --socket "$BATS_TEST_TMPDIR/s" --set stateDir="$BATS_TEST_TMPDIR/state" --config "$BATS_TEST_TMPDIR/unknown.yaml"
    [ "$status" = 2 ]
    [[ "$output" == *unknown.yaml:3* && "$output" == *poolSizes* ]]
    printf 'poolSize: many\n' >"$BATS_TEST_TMPDIR/type.yaml"
    run "$BUILD/warmpool" config check "$BATS_TEST_TMPDIR/type.yaml"
    [ "$status" != 0 ]
    [[ "$output" == *type.yaml:1* && "$output" == *poolSize* && "$output" == *many* ]]
    run "$BUILD/warmpoold" serve --socket "$BATS_TEST_TMPDIR/s" --set stateDir="$BATS_TEST_TMPDIR/state" --set poolSize=0
    [ "$status" = 2 ]
    [[ "$output" == *poolSize* ]]
}

@test "kill -9 of the daemon, then another on the same state directory: nothing is left over" {
    OTHER_EXPECT=200
    other_daemon
    "$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- sleep 60 >/dev/null 2>&1 3>&- &
    client=$!
    sleep 0.5
    kill -KILL $OTHER_PID
    wait $client || true
    rm -f "$OTHER/api.sock.lock"
    "$BUILD/warmpoold" serve --socket "$OTHER/api.sock" --set stateDir="$OTHER/state" --set poolSize=1 --set warmupAgentTypes=coder \
        >>"$OTHER/log" 2>&1 </dev/null 3>&- &
    OTHER_PID=$!
    eventually 30 other_answers
    "$BUILD/warmpool" --socket "$OTHER/api.sock" run coder -- true
    only_known() {
        [ "$(curl -s --unix-socket "$OTHER/api.sock" http://w/v1/containers | jq -r '.[].containerId' | sort)" = \
            "$(docker ps -aq --no-trunc --filter "label=$LABEL=$(cat "$OTHER/state/instance")" | sort)" ]
    }
    eventually 20 only_known
    other_down
}

@test "a runner that hangs does not keep a task beyond its deadline" {
    warmpool run --json --timeout 1s coder -- sleep 60 </dev/null >"$BATS_TEST_TMPDIR/result" 3>&- &
    local client=$! pid
    busy_pid() { pid=$(api GET /v1/containers | jq '.[] | select(.isInUse) | .pid') && [ -n "$pid" ]; }
    eventually 5 busy_pid
    kill -STOP "$pid"
    wait $client || true
    [ "$(jq -r .outcome "$BATS_TEST_TMPDIR/result")" = lost ]
    eventually 30 test ! -e "/proc/$pid"
}
