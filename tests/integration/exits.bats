# How a task ends reaches the client as in a shell.
load helper

setup_file() { daemon_start agentConfigs.small.memory=32m; }
teardown_file() { daemon_finish; }
teardown() { audit; }

@test "every exit code, 0 to 255" {
    for code in $(seq 0 255); do
        status=0
        wp_run coder -- sh -c "exit $code" || status=$?
        [ $status = "$code" ] || { echo "$code came as $status"; return 1; }
    done
}

@test "the ExecutionResult says success for 0 only" {
    [ "$(post coder true | jq -c '[.success, .exitCode, .outcome]')" = '[true,0,"exited"]' ]
    [ "$(post coder sh -c 'exit 3' | jq -c '[.success, .exitCode, .outcome]')" = '[false,3,"exited"]' ]
}

@test "a program that does not exist: 127" {
    run wp_run coder -- no-such-program
    [ "$status" = 127 ]
    [[ "$output" == *no-such-program* ]]
}

@test "a path that does not exist: 127" {
    run wp_run coder -- /no/such/program
    [ "$status" = 127 ]
}

@test "a file that cannot be executed: 126" {
    run wp_run coder -- /etc/passwd
    [ "$status" = 126 ]
    run wp_run coder -- /tmp
    [ "$status" = 126 ]
}

@test "an empty command is refused" {
    run wp_run coder --
    [ "$status" = 125 ]
    run wp_run coder -- ''
    [ "$status" = 125 ]
    [ "$(api POST /v1/tasks -d '{"agentType": "coder", "command": []}' -o /dev/null -w '%{http_code}')" = 400 ]
    [ "$(api POST /v1/tasks -d '{"agentType": "coder", "command": [""]}' -o /dev/null -w '%{http_code}')" = 400 ]
}

@test "signals come as 128 and the number" {
    for signal in 1 2 6 9 11 13 14 15 30; do
        status=0
        wp_run coder -- sh -c "kill -$signal \$\$; sleep 5" || status=$?
        [ $status = $((128 + signal)) ] || { echo "signal $signal came as $status"; return 1; }
    done
    [ "$(post coder sh -c 'kill -9 $$' | jq -c '[.outcome, .signal, .success]')" = '["signaled",9,false]' ]
}

@test "out of memory: 137, and the message says so" {
    # A shell that outlives its OOM-killed child ends by itself, as it does everywhere.
    run -137 wp_run small -- sh -c 'head -c 200000000 /dev/zero | tail'
    eventually 15 pool_settles small 1
    run --separate-stderr wp_run small -- tail /dev/zero
    echo "$status: $stderr"
    [ "$status" = 137 ]
    [[ "$stderr" == *"out of memory"* ]]
    eventually 15 pool_settles small 1
    wp_run small -- true
}

@test "a timeout: 124, within deadline and grace" {
    begun=$(date +%s%N)
    run wp_run coder --timeout 300ms -- sleep 60
    took=$((($(date +%s%N) - begun) / 1000000))
    [ "$status" = 124 ]
    [ $took -ge 300 ]
    [ $took -lt 1500 ]
}

@test "a timeout of processes that ignore SIGTERM, double-fork and hold stdout" {
    mark=stubborn-$RANDOM$RANDOM
    script='trap "" TERM; (trap "" TERM; (trap "" TERM; while :; do sleep 1; : '$mark'; done) & ) & while :; do sleep 1; : '$mark'; done'
    begun=$(date +%s%N)
    run wp_run coder --timeout 500ms -- sh -c "$script" "$mark"
    took=$((($(date +%s%N) - begun) / 1000000))
    [ "$status" = 124 ]
    [ $took -lt 3000 ]
    eventually 5 no_process_with "$mark"
}

@test "a background process that holds stdout does not delay the result" {
    begun=$(date +%s%N)
    run wp_run coder -- sh -c 'echo done; sleep 60 & '
    took=$((($(date +%s%N) - begun) / 1000000))
    [ "$status" = 0 ]
    [ "$output" = done ]
    [ $took -lt 2000 ]
}

@test "Ctrl-C ends the task's whole tree" {
    mark=interrupted-$RANDOM$RANDOM
    # The client gets a session of its own, so that the signal reaches it as from a terminal.
    setsid "$BUILD/warmpool" --socket "$SOCKET" run coder -- sh -c 'sleep 600 & (sleep 600 &) ; sleep 600; : '"$mark" "$mark" \
        </dev/null >/dev/null 2>&1 3>&- &
    client=$!
    eventually 5 a_process_with "$mark"
    kill -INT $client
    status=0
    wait $client || status=$?
    [ $status = 130 ]
    eventually 5 no_process_with "$mark"
    eventually 5 pool_settles coder 1
}

@test "a client that is killed takes its task along" {
    mark=vanished-$RANDOM$RANDOM
    "$BUILD/warmpool" --socket "$SOCKET" run coder -- sh -c 'sleep 600; : '"$mark" "$mark" </dev/null >/dev/null 2>&1 3>&- &
    client=$!
    eventually 5 a_process_with "$mark"
    kill -KILL $client
    wait $client || true
    eventually 5 no_process_with "$mark"
}

@test "a client that vanishes takes its task along, in the plain POST form too" {
    for accept in application/json application/x-ndjson; do
        mark=post-$RANDOM$RANDOM
        jq -cn --arg mark "$mark" '{agentType: "coder", command: ["sh", "-c", "sleep 600; : " + $mark, $mark]}' >"$BATS_TEST_TMPDIR/body"
        curl --silent --no-buffer --unix-socket "$SOCKET" -H "Accept: $accept" --data-binary @"$BATS_TEST_TMPDIR/body" \
            http://warmpool/v1/tasks >/dev/null 2>&1 3>&- &
        client=$!
        eventually 5 a_process_with "$mark"
        kill -KILL $client
        wait $client || true
        eventually 5 no_process_with "$mark"
    done
}

@test "DELETE ends a task; its client learns of it" {
    jq -cn '{agentType: "coder", command: ["sleep", "600"], id: "to-be-cancelled"}' |
        api POST /v1/tasks --data-binary @- >"$BATS_TEST_TMPDIR/result" 3>&- &
    waiting=$!
    running() { [ "$(api GET /v1/tasks/to-be-cancelled | jq -r .state)" = running ]; }
    eventually 5 running
    api DELETE /v1/tasks/to-be-cancelled
    wait $waiting
    [ "$(jq -r .outcome "$BATS_TEST_TMPDIR/result")" = cancelled ]
    [ "$(api DELETE /v1/tasks/no-such-task -o /dev/null -w '%{http_code}')" = 404 ]
}

@test "resources are measured for this task alone, and what was not is null" {
    result=$(post coder sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done')
    [ "$(jq '.resourcesUsed.cpuTime > 20' <<<"$result")" = true ]
    [ "$(jq '.resourcesUsed | has("diskIO") and has("networkIO") and has("fileHandles") and has("maxMemory")' <<<"$result")" = true ]
    idle=$(post coder sleep 0.2)
    [ "$(jq '.resourcesUsed.cpuTime < 20' <<<"$idle")" = true ]
}
