# What goes in and comes out: every byte, any size, at any speed.
load helper

setup_file() { daemon_start; }
teardown_file() { daemon_finish; }
teardown() { audit; }

@test "stdin, stdout and stderr are kept apart" {
    printf 'to the task' | warmpool run coder -i -- sh -c 'cat; echo complaint >&2' >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err"
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = "to the task" ]
    [ "$(cat "$BATS_TEST_TMPDIR/err")" = complaint ]
}

@test "without -i the task's stdin is empty" {
    [ "$(echo unasked | warmpool run coder -- wc -c)" = 0 ]
}

@test "NUL and bytes that are not UTF-8 arrive unchanged through the command line" {
    for n in 1 2 3 4; do for byte in $(seq 0 255); do printf "\\x$(printf %x "$byte")"; done; done >"$BATS_TEST_TMPDIR/bytes"
    warmpool run coder -i -- cat <"$BATS_TEST_TMPDIR/bytes" >"$BATS_TEST_TMPDIR/back"
    cmp "$BATS_TEST_TMPDIR/bytes" "$BATS_TEST_TMPDIR/back"
}

@test "bytes that are not UTF-8 come as base64 in JSON, and say so; NUL is text" {
    result=$(post coder printf '\377\000x')
    [ "$(jq -r .outputEncoding <<<"$result")" = base64 ]
    [ "$(jq -r .output <<<"$result" | base64 -d | od -An -tx1)" = " ff 00 78" ]
    result=$(post coder printf 'a\000b')
    [ "$(jq 'has("outputEncoding")' <<<"$result")" = false ]
    [ "$(jq -c '.output | explode' <<<"$result")" = '[97,0,98]' ]
}

@test "a UTF-8 sequence cut in two by a write is whole in the stream" {
    body=$(jq -cn '{agentType: "coder", command: ["sh", "-c", "printf \"\\342\\202\"; sleep 0.3; printf \"\\254\""]}')
    text=$(api POST /v1/tasks -H 'Accept: application/x-ndjson' -d "$body" | jq -rs 'map(select(.type == "stdout") | .data) | join("")')
    [ "$text" = € ]
}

@test "stdin in JSON, as text and as base64" {
    result=$(api POST /v1/tasks -d '{"agentType": "coder", "command": ["cat"], "stdin": "h\u00e9"}')
    [ "$(jq -r .output <<<"$result")" = hé ]
    result=$(api POST /v1/tasks -d '{"agentType": "coder", "command": ["od", "-An", "-tx1"], "stdin": "/wA=", "stdinEncoding": "base64"}')
    [ "$(jq -r .output <<<"$result")" = " ff 00" ]
}

@test "a line of 10 MB, there and back" {
    head -c 10000000 /dev/zero | tr '\0' x >"$BATS_TEST_TMPDIR/line"
    warmpool run coder -i -- cat <"$BATS_TEST_TMPDIR/line" | cmp - "$BATS_TEST_TMPDIR/line"
    [ "$(wp_run coder -- sh -c 'head -c 10000000 /dev/zero | tr "\0" x' | sha256sum)" = "$(sha256sum <"$BATS_TEST_TMPDIR/line")" ]
}

@test "50 MB through the stream of events have the right checksum, the daemon stays small" {
    body=$(jq -cn '{agentType: "coder", command: ["sh", "-c", "seq 1 6250000 | head -c 50000000"]}')
    sum=$(api POST /v1/tasks -H 'Accept: application/x-ndjson' -d "$body" | jq -j 'select(.type == "stdout") | .data' | sha256sum)
    [ "$sum" = "$(seq 1 6250000 | head -c 50000000 | sha256sum)" ]
    [ "$(awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$DAEMON_PID/smaps_rollup")" -lt 16384 ]
}

@test "captured output is cut at maxOutputBytes, and the result says so" {
    result=$(api POST /v1/tasks -d '{"agentType": "coder", "command": ["seq", "1", "100000"], "maxOutputBytes": 1000}')
    [ "$(jq '.output | length' <<<"$result")" = 1000 ]
    [ "$(jq .truncated <<<"$result")" = true ]
    [ "$(jq .success <<<"$result")" = true ]
}

@test "a task that never reads its stdin ends, and 5 MB that nobody wants harm nothing" {
    head -c 5000000 /dev/zero | timeout 20 "$BUILD/warmpool" --socket "$SOCKET" run coder -i -- true
    head -c 5000000 /dev/zero | timeout 20 "$BUILD/warmpool" --socket "$SOCKET" run coder -i -- sh -c 'exec <&-; sleep 0.3; exit 7' || [ $? = 7 ]
    run timeout 20 "$BUILD/warmpool" --socket "$SOCKET" run coder -i --timeout 500ms -- sleep 60 < <(head -c 5000000 /dev/zero)
    [ "$status" = 124 ]
}

@test "a slow reader slows its own task and no other" {
    warmpool run coder -- sh -c 'seq 1 20000000' 2>/dev/null </dev/null | { sleep 3; head -c 10 >/dev/null; } &
    sleep 0.5
    warmpool warm tester 1
    begun=$(date +%s%N)
    for _ in 1 2 3 4 5; do wp_run tester -- true; done
    [ $((($(date +%s%N) - begun) / 1000000)) -lt 1500 ]
    [ "$(awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$DAEMON_PID/smaps_rollup")" -lt 16384 ]
    wait || true
}

@test "a reader that goes away ends the task" {
    timeout 20 "$BUILD/warmpool" --socket "$SOCKET" run coder -- yes 2>/dev/null </dev/null | head -n 1
    eventually 10 pool_settles coder 1
}

@test "an argument of 100 KB, argv of 200 KB, an environment of 100 KB" {
    long=$(head -c 100000 /dev/zero | tr '\0' a)
    [ "$(wp_run coder -- sh -c 'echo ${#1} ${#2}' sh "$long" "$long")" = "100000 100000" ]
    jq -cn --arg long "$long" '{agentType: "coder", command: (["sh", "-c", "echo $#", "sh"] + [range(2000) | $long[:100]])}' >"$BATS_TEST_TMPDIR/body"
    [ "$(api POST /v1/tasks --data-binary @"$BATS_TEST_TMPDIR/body" | jq -r .output)" = 2000 ]
    [ "$(wp_run coder -e LONG="$long" -- sh -c 'echo ${#LONG}')" = 100000 ]
}

@test "arguments are not words for a shell" {
    [ "$(wp_run coder -- printf '[%s]' 'a b' '' '$HOME' '*' $'new\nline' -- -i)" = $'[a b][][$HOME][*][new\nline][--][-i]' ]
}

@test "environment and working directory reach the task, and only this one" {
    [ "$(wp_run coder -e GREETING='good day' --workdir /tmp -- sh -c 'echo "$GREETING from $PWD"')" = "good day from /tmp" ]
    [ "$(wp_run coder -- sh -c 'echo "${GREETING-none} from $PWD"')" = "none from /workspace" ]
    [ "$(wp_run coder -- sh -c 'echo $AGENT_TYPE $POOL_MODE $NODE_ENV $CODER_MODE')" = "coder true production true" ]
}

@test "a working directory that does not exist is said" {
    run wp_run coder --workdir /no/such/place -- true
    [ "$status" = 126 ] || [ "$status" = 125 ]
    [[ "$output" == */no/such/place* ]]
}

@test "a full /workspace gives ENOSPC and no OOM kill" {
    run wp_run coder -- sh -c 'dd if=/dev/zero of=/workspace/all bs=1M count=2000'
    [ "$status" = 1 ]
    [[ "$output" == *"No space left on device"* ]]
    run wp_run coder -- sh -c 'dd if=/dev/zero of=/tmp/all bs=1M count=2000'
    [[ "$output" == *"No space left on device"* ]]
    eventually 5 pool_settles coder 1
    [ "$(wp_run coder -- sh -c 'echo fine >/workspace/x && cat /workspace/x')" = fine ]
}

@test "a real tree goes in as a tar and its checksum comes back" {
    cd "$ROOT"
    expected=$(cat src/base/*.c src/wire/*.c | sha256sum | cut -d' ' -f1)
    [ "$(tar c src | warmpool run coder -i -- sh -c 'tar x && cat src/base/*.c src/wire/*.c | sha256sum | cut -d" " -f1')" = "$expected" ]
}
