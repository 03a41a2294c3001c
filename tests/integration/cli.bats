# The command line tool: verbs, options, what they print for people and for programs.
load helper

setup_file() { daemon_start; }
teardown_file() { daemon_finish; }
teardown() { audit; }

@test "--version and --help, of every verb too" {
    [[ "$(warmpool --version)" == "warmpool "[0-9]* ]]
    verbs=$("$BUILD/warmpool" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
    for verb in up down run status ps scale warm image doctor; do
        grep -qx $verb <<<"$verbs" || { echo "$verb is not listed"; return 1; }
    done
    for verb in $verbs; do
        run "$BUILD/warmpool" $verb --help
        [ "$status" = 0 ] && [[ "$output" == *usage* ]] || { echo "$verb: $output"; return 1; }
    done
}

@test "what is misspelt is refused with a word of advice" {
    run "$BUILD/warmpool" runn coder -- true
    [ "$status" = 125 ]
    [[ "$output" == *runn* ]]
    run warmpool run coder --timeout soon -- true
    [ "$status" = 125 ]
    run warmpool run coder --no-such-option -- true
    [ "$status" = 125 ]
    [[ "$output" == *no-such-option* ]]
    run warmpool scale coder many
    [ "$status" = 125 ]
}

@test "options may stand before or after the verb's argument, up to --" {
    [ "$(wp_run -e A=1 coder -e B=2 -- sh -c 'echo $A$B')" = 12 ]
    [ "$(wp_run coder -- echo --json -i)" = "--json -i" ]
}

@test "status, ps and metrics print JSON that programs can read" {
    warmpool status --json | jq -e '.pid and .instance and .stateDir and (.pools | length == 1)'
    warmpool ps --json | jq -e '.[0] | .containerId and .agentType == "coder" and .isHealthy and (.isInUse | not)'
    wp_run coder -- true
    warmpool metrics --json | jq -e '.totalContainers == 1 and .containerHitRate == 100 and .averageExecutionTime >= 0 and
        .containersByType.coder == 1 and (.poolUtilization | type == "number") and .unhealthyContainers == 0'
    [[ "$(warmpool status)" == *coder* ]]
    [[ "$(warmpool ps)" == *coder* ]]
}

@test "run --json prints the ExecutionResult and exits with the task's code" {
    status=0
    wp_run coder --json -- sh -c 'echo out; echo err >&2; exit 4' >"$BATS_TEST_TMPDIR/result" || status=$?
    [ $status = 4 ]
    jq -e '.success == false and .output == "out\n" and .error == "err\n" and .exitCode == 4 and .duration > 0 and
        .metadata.agentType == "coder" and .metadata.pooledExecution and .metadata.executionMode == "pooled" and
        (.artifacts | type == "object") and .timings.execMs > 0' "$BATS_TEST_TMPDIR/result"
}

@test "the socket may come from the environment" {
    WARMPOOL_SOCKET=$SOCKET "$BUILD/warmpool" run coder -- true
}

@test "doctor finds this machine fit" {
    run env WARMPOOL_CONFIG=/dev/null "$BUILD/warmpool" --socket "$SOCKET" doctor
    echo "$output"
    [ "$status" = 0 ]
    [[ "$output" == *engine* ]]
}

@test "up warms, down leaves nothing behind" {
    place=$BATS_TEST_TMPDIR/own
    mkdir -p "$place"
    WARMPOOL_CONFIG=/dev/null "$BUILD/warmpool" --socket "$place/s.sock" up --set stateDir="$place/state" --set poolSize=2 \
        --set warmupAgentTypes=coder,tester 3>&-
    instance=$("$BUILD/warmpool" --socket "$place/s.sock" status --json | jq -r .instance)
    pid=$("$BUILD/warmpool" --socket "$place/s.sock" status --json | jq -r .pid)
    [ "$(docker ps -q --filter "label=$LABEL=$instance" | wc -l)" = 4 ]
    "$BUILD/warmpool" --socket "$place/s.sock" run tester -- true
    "$BUILD/warmpool" --socket "$place/s.sock" down
    [ -z "$(instance_objects "$instance")" ]
    [ -z "$(ls -A "$place/state/containers" 2>/dev/null)" ]
    [ ! -S "$place/s.sock" ]
    gone() { ! kill -0 "$pid" 2>/dev/null; }
    eventually 5 gone
}

@test "down waits for what runs; down --force does not" {
    for force in "" --force; do
        place=$BATS_TEST_TMPDIR/own$force
        mkdir -p "$place"
        WARMPOOL_CONFIG=/dev/null "$BUILD/warmpool" --socket "$place/s.sock" up --set stateDir="$place/state" --set poolSize=1 \
            --set warmupAgentTypes=coder 3>&-
        "$BUILD/warmpool" --socket "$place/s.sock" run coder -- sh -c 'sleep 2; echo finished' >"$place/out" 2>/dev/null 3>&- &
        task=$!
        sleep 0.5
        instance=$(cat "$place/state/instance")
        # shellcheck disable=SC2086
        "$BUILD/warmpool" --socket "$place/s.sock" down $force
        wait $task || true
        [ "$(cat "$place/out")" = "$([ -n "$force" ] || echo finished)" ]
        [ -z "$(instance_objects "$instance")" ]
    done
}

# Its output goes to whoever reads from the FIFO "$BATS_TEST_TMPDIR/out".
flood() {
    mkfifo "$BATS_TEST_TMPDIR/out"
    "$BUILD/warmpool" --socket "$SOCKET" run --id flood coder -- yes </dev/null >"$BATS_TEST_TMPDIR/out" 2>/dev/null 3>&- &
    CLIENT=$!
}

client_is_gone() { ! kill -0 "$CLIENT" 2>/dev/null; }

@test "an interrupt is heard while output comes faster than it is read" {
    flood
    (while [ "$(head -c 65536 | wc -c)" != 0 ]; do sleep 0.03; done) <"$BATS_TEST_TMPDIR/out" 3>&- &
    sleep 0.7
    kill -INT $CLIENT
    eventually 5 client_is_gone
    status=0
    wait $CLIENT || status=$?
    [ "$status" = 130 ]
    wait
}

@test "interrupts are heard while nobody reads the output: the first ends the task, the third all" {
    flood
    sleep 60 <"$BATS_TEST_TMPDIR/out" 3>&- &
    local reader=$! i
    sleep 0.7
    kill -INT $CLIENT
    flood_ended() { [ "$(api GET /v1/tasks/flood | jq -r .state)" = ended ]; }
    eventually 10 flood_ended
    for i in 1 2 3; do
        sleep 0.2
        kill -INT $CLIENT 2>/dev/null || true
    done
    eventually 5 client_is_gone
    status=0
    wait $CLIENT || status=$?
    kill $reader
    [ "$status" = 130 ]
}

@test "output that cannot be written: why; output that does not take all at once: all of it" {
    status=0
    wp_run coder -- echo hello >/dev/full 2>"$BATS_TEST_TMPDIR/error" || status=$?
    [ "$status" = 125 ]
    grep -q "No space left" "$BATS_TEST_TMPDIR/error"
    # shellcheck disable=SC2016
    [ "$(perl -MFcntl -e 'pipe(R, W); fcntl(W, F_SETFL, O_NONBLOCK);
        if (!fork) { close R; open(STDOUT, ">&W"); exec @ARGV }
        close W; $size = 0; while ($got = sysread(R, $some, 65536)) { $size += $got; select(undef, undef, undef, 0.002) }
        print $size' "$BUILD/warmpool" --socket "$SOCKET" run coder -- head -c 5000000 /dev/zero </dev/null)" = 5000000 ]
}
