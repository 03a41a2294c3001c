# The HTTP API in front of real containers.
load helper

setup_file() {
    daemon_start maxPoolSize=2 agentConfigs.single.maxPoolSize=1 agentConfigs.single.maxQueue=1 \
        agentConfigs.broken.dockerImage=no-such-image:never 'agentConfigs.speaker.command=echo, {{description}}, {{agent.name}}'
}
teardown_file() { daemon_finish; }
teardown() { audit; }

code_of() { # METHOD PATH [CURL ARGUMENTS...]: the status alone
    api "$@" -o /dev/null -w '%{http_code}'
}

ndjson() { # TYPE COMMAND...: the lines of the stream
    local type=$1
    shift
    jq -cn --arg type "$type" '{agentType: $type, command: $ARGS.positional}' --args -- "$@" |
        api POST /v1/tasks -H 'Accept: application/x-ndjson' --no-buffer --data-binary @-
}

# The daemon's resident memory that is its own, KiB.
private_kib() {
    awk '/^Private_(Clean|Dirty):/ {sum += $2} END {print sum}' "/proc/$DAEMON_PID/smaps_rollup"
}

@test "a task is answered with its ExecutionResult, and known afterwards" {
    jq -cn '{agentType: "coder", command: ["sh", "-c", "echo out; echo err >&2; cat; exit 4"], stdin: "in", id: "known-1",
        env: {GREETING: "hello"}}' | api POST /v1/tasks --data-binary @- -D "$BATS_TEST_TMPDIR/head" >"$BATS_TEST_TMPDIR/body"
    grep -qi '^x-task-id: known-1' "$BATS_TEST_TMPDIR/head"
    jq -e '.output == "out\nin" and .error == "err\n" and .exitCode == 4 and .success == false and
        .metadata.executionMode == "pooled" and .metadata.agentType == "coder" and .timings.execMs > 0' "$BATS_TEST_TMPDIR/body"
    api GET /v1/tasks/known-1 | jq -e '.state == "ended" and .result.exitCode == 4 and (.result | has("output") | not)'
}

@test "environment, working directory and stdin as base64 reach the task" {
    result=$(jq -cn '{agentType: "coder", command: ["sh", "-c", "echo $A; pwd; cat | od -An -tx1"], env: {A: "a b"}, workdir: "/tmp",
        stdin: "AP8K", stdinEncoding: "base64"}' | api POST /v1/tasks --data-binary @-)
    [ "$(jq -r .output <<<"$result")" = $'a b\n/tmp\n 00 ff 0a' ]
}

@test "a task definition goes through the profile's template" {
    body='{"agentType":"speaker","task":{"id":"1","type":"say","name":"n","description":"two words; $(id)"},"agent":{"name":"Ada"}}'
    [ "$(api POST /v1/tasks -d "$body" | jq -r .output)" = 'two words; $(id) Ada' ]
    [ "$(code_of POST /v1/tasks -d '{"agentType":"speaker","task":{"description":"x"}}')" = 422 ]
    [ "$(code_of POST /v1/tasks -d '{"agentType":"coder","task":{"description":"x"}}')" = 422 ]
}

@test "bytes that are not UTF-8 come as base64" {
    result=$(post coder sh -c "printf '\\000\\377'; printf '\\376' >&2")
    jq -e '.output == "AP8=" and .outputEncoding == "base64" and .error == "/g==" and .errorEncoding == "base64"' <<<"$result"
}

@test "output beyond maxOutputBytes is cut and said to be" {
    body='{"agentType":"coder","command":["sh","-c","head -c 5000 /dev/zero | tr \"\\0\" a"],"maxOutputBytes":1000}'
    api POST /v1/tasks -d "$body" | jq -e '(.output | length) == 1000 and .truncated and .success'
}

@test "the stream tells started, output, result, in this order, while the task runs" {
    ndjson coder sh -c 'echo one; sleep 0.5; echo two >&2' >"$BATS_TEST_TMPDIR/lines" &
    stream=$!
    early() { grep -q '"one' "$BATS_TEST_TMPDIR/lines"; }
    eventually 3 early
    ! grep -q two "$BATS_TEST_TMPDIR/lines"
    wait $stream
    [ "$(jq -r .type "$BATS_TEST_TMPDIR/lines" | paste -sd' ')" = "started stdout stderr result" ]
    jq -se '.[1].data == "one\n" and .[2].data == "two\n" and .[3].result.exitCode == 0 and .[0].taskId == .[3].result.metadata.taskId' \
        "$BATS_TEST_TMPDIR/lines"
}

@test "20 MB, every line different, arrive through the stream with the right digest" {
    expected=$(seq 1 2600000 | sha256sum)
    [ "$(ndjson coder seq 1 2600000 | jq -rj 'select(.type == "stdout").data' | sha256sum)" = "$expected" ]
}

@test "a reader that stalls slows its task, not the daemon, whose memory stays" {
    post coder true >/dev/null
    before=$(private_kib)
    jq -cn '{agentType: "coder", command: ["sh", "-c", "yes | head -c 100000000"]}' >"$BATS_TEST_TMPDIR/body"
    # curl is stopped as soon as something has come
    curl --silent --no-buffer --unix-socket "$SOCKET" -H 'Accept: application/x-ndjson' --data-binary @"$BATS_TEST_TMPDIR/body" \
        http://warmpool/v1/tasks >"$BATS_TEST_TMPDIR/lines" 2>/dev/null 3>&- &
    reader=$!
    eventually 5 test -s "$BATS_TEST_TMPDIR/lines"
    kill -STOP $reader
    sleep 1
    [ "$(pool_of coder .busy)" = 1 ]
    [ $(($(private_kib) - before)) -lt 4096 ]
    post coder echo meanwhile | jq -e '.output == "meanwhile\n"'
    kill -KILL $reader
    wait $reader || true
    freed() { [ "$(pool_of coder .busy)" = 0 ]; }
    eventually 5 freed
}

@test "two clients at once do not wait for each other" {
    begun=$(date +%s%N)
    api POST /v1/pools/coder/warm -d '{"size": 2}' >/dev/null
    post coder sleep 1 >/dev/null &
    post coder sleep 1 >/dev/null &
    wait
    [ $((($(date +%s%N) - begun) / 1000000)) -lt 5000 ]
    begun=$(date +%s%N)
    post coder sleep 1 >/dev/null &
    post coder sleep 1 >/dev/null &
    [ "$(code_of GET /healthz)" = 200 ]
    wait
    [ $((($(date +%s%N) - begun) / 1000000)) -lt 1900 ]
}

@test "a full queue is 429 with Retry-After, a wait that is too long 503" {
    api POST /v1/pools/single/warm -d '{"size": 1}' >/dev/null
    busy() { [ "$(pool_of single .busy)" = 1 ]; }
    waits() { [ "$(pool_of single .waiting)" = 1 ]; }
    post single sleep 2 >/dev/null &
    eventually 5 busy
    body='{"agentType":"single","command":["true"],"queueTimeoutMs":"400ms"}'
    api POST /v1/tasks -d "$body" -w '\n%{http_code}' >"$BATS_TEST_TMPDIR/late" &
    eventually 5 waits
    api POST /v1/tasks -d "$body" -D "$BATS_TEST_TMPDIR/head" | jq -e '.error.code == "queue_full"'
    grep -q ' 429 ' "$BATS_TEST_TMPDIR/head"
    grep -qi '^retry-after:' "$BATS_TEST_TMPDIR/head"
    wait
    [ "$(tail -n 1 "$BATS_TEST_TMPDIR/late")" = 503 ]
    head -n 1 "$BATS_TEST_TMPDIR/late" | jq -e '.error.code == "no_container" and (.error.message | test("busy"))'
}

@test "a waiting task whose client vanishes leaves the queue" {
    busy() { [ "$(pool_of single .busy)" = 1 ]; }
    waits() { [ "$(pool_of single .waiting)" = "$1" ]; }
    eventually 10 pool_settles single 1
    post single sleep 2 >/dev/null &
    eventually 5 busy
    curl --silent --unix-socket "$SOCKET" -d '{"agentType":"single","command":["true"]}' http://warmpool/v1/tasks >/dev/null 3>&- &
    client=$!
    eventually 5 waits 1
    kill -KILL $client
    wait $client || true
    eventually 5 waits 0
    [ "$(pool_of single .busy)" = 1 ]
    wait
}

@test "an image that is missing is told in the engine's own words" {
    body='{"agentType":"broken","command":["true"],"queueTimeoutMs":3000}'
    result=$(api POST /v1/tasks -d "$body" -w '\n%{http_code}')
    [ "$(tail -n 1 <<<"$result")" = 503 ]
    head -n 1 <<<"$result" | jq -e '.error.message | test("no-such-image")'
    no_broken() { [ "$(api GET /v1/containers | jq '[.[] | select(.agentType == "broken")] | length')" = 0 ]; }
    eventually 20 no_broken
}

@test "malformed requests are refused, and the next one is served" {
    [ "$(code_of POST /v1/tasks -d '{"agentType":')" = 400 ]
    [ "$(code_of POST /v1/tasks -d '')" = 400 ]
    api POST /v1/tasks -d '{"agentType":"coder","command":["a",1]}' | jq -e '.error.message | test("\\$.command\\[1\\]")'
    [ "$(code_of POST /v1/tasks -d '{"agentType":"No_Such","command":["a"]}')" = 400 ]
    [ "$(code_of PATCH /v1/pools/coder)" = 405 ]
    [ "$(code_of GET /nothing)" = 404 ]
    [ "$(head -c 17000000 /dev/zero | code_of POST /v1/tasks --data-binary @-)" = 413 ]
    [ "$(head -c 17000000 /dev/zero | code_of POST /v1/tasks -H 'Transfer-Encoding: chunked' --data-binary @-)" = 413 ]
    for request in 'GET /healthz\r\n\r\n' 'GET /healthz HTTP/1.1\r\nHost: w\r\nno header\r\n\r\n' \
        'POST /v1/tasks HTTP/1.1\r\nHost: w\r\nContent-Length: ten\r\n\r\n'; do
        printf "$request" | timeout 5 socat -t 5 - "UNIX-CONNECT:$SOCKET" | head -n 1 | grep -q ' 400 '
    done
    printf '\0\1\2\3\r\n\r\n' | timeout 5 socat - "UNIX-CONNECT:$SOCKET" >/dev/null || true
    head -c 100000 /dev/urandom | timeout 5 socat -u - "UNIX-CONNECT:$SOCKET" || true
    post coder true | jq -e .success
}

@test "a command of 200 KB, and one that is too large" {
    word=$(head -c 100000 /dev/zero | tr '\0' x)
    jq -cn --rawfile word <(printf %s "$word") '{agentType: "coder", command: ["sh", "-c", "echo ${#1} ${#2}", "sh", $word, $word]}' |
        api POST /v1/tasks --data-binary @- | jq -e '.output == "100000 100000\n"'
    head -c 5000000 /dev/zero | tr '\0' x >"$BATS_TEST_TMPDIR/long"
    jq -cn --rawfile word "$BATS_TEST_TMPDIR/long" '{agentType: "coder", command: ["echo", $word]}' >"$BATS_TEST_TMPDIR/body"
    [ "$(code_of POST /v1/tasks --data-binary @"$BATS_TEST_TMPDIR/body")" = 400 ]
}

@test "metrics count what has run, with every field of the seed" {
    before=$(api GET /v1/metrics)
    post coder true >/dev/null
    after=$(api GET /v1/metrics)
    [ "$(jq .tasksByOutcome.exited <<<"$after")" = $(($(jq .tasksByOutcome.exited <<<"$before") + 1)) ]
    jq -e 'has("totalContainers") and has("activeContainers") and has("idleContainers") and has("containersByType") and
        has("poolUtilization") and has("averageExecutionTime") and has("containerHitRate") and has("healthyContainers") and
        has("unhealthyContainers") and .containersByType.coder >= 1 and .containerHitRate <= 100 and .execution.p50 > 0' <<<"$after"
}

@test "containers are listed with every field of the seed" {
    api GET /v1/containers | jq -e 'length > 0 and all(.[]; has("containerId") and has("containerName") and has("agentType") and
        has("createdAt") and has("lastUsed") and has("execCount") and has("isHealthy") and has("isInUse") and has("networkId") and
        has("volumeId"))'
}

@test "a second daemon on the same socket, or on the same state directory, refuses" {
    other=$BATS_TEST_TMPDIR/state
    run --separate-stderr env WARMPOOL_CONFIG=/dev/null timeout 20 "$BUILD/warmpoold" serve --socket "$SOCKET" --set stateDir="$other" \
        --set warmupAgentTypes=
    [ "$status" = 1 ]
    [[ "$stderr" == *"$SOCKET"* ]]
    run --separate-stderr env WARMPOOL_CONFIG=/dev/null timeout 20 "$BUILD/warmpoold" serve --socket "$BATS_TEST_TMPDIR/other.sock" \
        --set stateDir="$STATE" --set warmupAgentTypes=
    [ "$status" = 1 ]
    [[ "$stderr" == *"$STATE"* ]]
    [ ! -e "$BATS_TEST_TMPDIR/other.sock" ]
    [ "$(code_of GET /readyz)" = 200 ]
}

@test "the socket is for its owner and group only" {
    [ "$(stat -c %a "$SOCKET")" = 660 ]
}

@test "wrong configuration: exit 2, file, line, key and what is allowed" {
    printf 'poolSize: 2\nmaxPoolSize: many\n' >"$BATS_TEST_TMPDIR/bad.yaml"
    for verb in "serve --config" "config check"; do
        run --separate-stderr timeout 10 "$BUILD/warmpoold" $verb "$BATS_TEST_TMPDIR/bad.yaml"
        [ "$status" = 2 ]
        [[ "$stderr" == *"bad.yaml:2"*maxPoolSize*many* ]]
    done
}

@test "doctor finds nothing wrong here, and an engine that is not there" {
    run "$BUILD/warmpoold" doctor --json --set stateDir="$STATE" --socket "$SOCKET"
    [ "$status" = 0 ]
    jq -e 'all(.[]; .verdict != "fail") and any(.[]; .check == "engine" and (.text | test("docker"))) and
        any(.[]; .check == "daemon" and (.text | test("^runs"))) and any(.[]; .check == "containers" and .verdict == "ok")' <<<"$output"
    run "$BUILD/warmpoold" doctor --set stateDir="$STATE" --socket "$BATS_TEST_TMPDIR/nobody"
    [ "$status" = 0 ]
    [[ "$output" == *warn*containers*"left by a former run"* ]]
    run "$BUILD/warmpoold" doctor --set dockerHost=unix:///nowhere/docker.sock
    [ "$status" = 1 ]
    [[ "$output" == *fail*engine* ]]
}
