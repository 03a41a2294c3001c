# Leases: a container for several tasks: files and background processes stay, nobody else comes in, and afterwards it is as clean as
# after a task. Over CLI and API.
load helper

setup_file() {
    daemon_start poolSize=2 maxPoolSize=3 leaseWarnAfter=1s agentConfigs.single.maxPoolSize=1 agentConfigs.single.poolSize=1
}
teardown_file() { daemon_finish; }
teardown() {
    local id
    for id in $(warmpool leases --json | jq -r '.[].id'); do warmpool release "$id" >/dev/null; done
    eventually 10 no_leases
    audit
}

no_leases() { [ "$(warmpool leases --json)" = "[]" ]; }
lease_of() { warmpool leases --json | jq -r --arg id "$1" ".[] | select(.id == \$id) | $2"; }
inside() { # LEASE COMMAND...
    local id=$1
    shift
    warmpool exec "$id" -- "$@" </dev/null
}

@test "files, background processes and the container stay from task to task" {
    id=$(warmpool lease coder)
    [[ $id =~ ^l[0-9a-f]{16}$ ]]
    first=$(warmpool exec "$id" --json -- sh -c 'echo kept > file; echo here > /tmp/other; sleep 1000 & echo $! > pid' </dev/null)
    second=$(warmpool exec "$id" --json -- sh -c 'cat file /tmp/other; kill -0 $(cat pid) && echo lives' </dev/null)
    [ "$(jq -r .output <<<"$second")" = $'kept\nhere\nlives' ]
    [ "$(jq -r .metadata.containerId <<<"$first")" = "$(jq -r .metadata.containerId <<<"$second")" ]
    [ "$(jq .metadata.execCount <<<"$second")" = 2 ]
    [ "$(jq .hit <<<"$second")" = true ]
}

@test "after its end the same container is clean and serves others" {
    id=$(warmpool lease coder)
    inside "$id" sh -c 'echo secret > /workspace/f; sleep 1000 & ipcs >/dev/null 2>&1; echo x > /dev/shm/y'
    name=$(lease_of "$id" .containerName)
    warmpool release "$id"
    eventually 5 no_leases
    container_is() { [ "$(warmpool ps --json | jq -r --arg name "$name" '.[] | select(.containerName == $name) | .state')" = idle ]; }
    eventually 5 container_is
    result=$(wp_run coder --json -- sh -c 'ls -A /workspace /dev/shm | grep -v :; ps | grep -c "[s]leep" || true')
    [ "$(jq -r .metadata.containerName <<<"$result")" = "$name" ] # the most recently used one
    [ "$(jq -r '.output | gsub("\n"; "")' <<<"$result")" = 0 ]
}

@test "a background process that writes on neither blocks nor dies, and its output goes nowhere" {
    id=$(warmpool lease coder)
    output=$(inside "$id" sh -c '(i=0; while sleep 0.01; do i=$((i+1)); echo noise $i; head -c 70000 /dev/zero; echo $i > /tmp/count; done) & echo started')
    [[ $output == started* ]]
    before=$(inside "$id" sh -c 'sleep 0.3; cat /tmp/count')
    after=$(inside "$id" sh -c 'sleep 0.5; cat /tmp/count')
    [ "$after" -gt "$before" ]
    [ "$(inside "$id" echo quiet)" = quiet ]
}

@test "a task that takes too long ends with its own processes, those of earlier ones stay" {
    id=$(warmpool lease coder)
    inside "$id" sh -c 'sleep 1234 & true'
    run warmpool exec "$id" --timeout 300ms -- sh -c 'sleep 4321; true'
    [ "$status" = 124 ]
    [ "$(inside "$id" sh -c 'ps | grep -c "[s]leep 1234"')" = 1 ]
    [ "$(inside "$id" sh -c 'ps | grep -c "[s]leep 4321" || true')" = 0 ]
}

@test "a task that is ended takes the jobs of its shell along" {
    id=$(warmpool lease coder)
    run warmpool exec "$id" -t --timeout 700ms -- sh -ic 'trap "" HUP; sleep 4444 & sleep 5555; true'
    [ "$status" = 124 ]
    gone() { [ "$(inside "$id" sh -c 'ps | grep -c "[s]leep [45]" || true')" = 0 ]; }
    eventually 10 gone
}

@test "tasks of a lease run one after the other, in order" {
    id=$(warmpool lease coder)
    for n in 1 2 3 4; do
        inside "$id" sh -c "echo begin $n >> log; sleep 0.2; echo end $n >> log" &
        sleep 0.05
    done
    wait
    [ "$(inside "$id" cat log)" = "$(for n in 1 2 3 4; do printf 'begin %d\nend %d\n' $n $n; done)" ]
}

@test "nobody else comes into a leased container, and it counts against the pool's size" {
    id=$(warmpool lease single)
    run warmpool run single --queue-timeout 400ms -- true
    [ "$status" = 125 ]
    [[ $output == *"every container of its type stayed busy"* ]]
    wp_run single -- true &
    sleep 0.3
    warmpool release "$id"
    wait $!
}

@test "cp there and back, as tar too" {
    id=$(warmpool lease coder)
    mkdir -p "$BATS_TEST_TMPDIR/tree/sub"
    echo one >"$BATS_TEST_TMPDIR/tree/sub/1"
    head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/tree/big"
    warmpool cp "$BATS_TEST_TMPDIR/tree" "$id:there"
    [ "$(inside "$id" cat there/sub/1)" = one ]
    inside "$id" sh -c 'echo two > there/sub/2'
    warmpool cp "$id:there" "$BATS_TEST_TMPDIR/back"
    cmp "$BATS_TEST_TMPDIR/tree/big" "$BATS_TEST_TMPDIR/back/big"
    [ "$(cat "$BATS_TEST_TMPDIR/back/sub/2")" = two ]
    tar -C "$BATS_TEST_TMPDIR" -cf - tree | warmpool cp - "$id:/workspace/astar"
    warmpool cp "$id:/workspace/astar" - | tar -tf - | grep -q sub/1
    run warmpool cp "$id:nothing" "$BATS_TEST_TMPDIR/x"
    [ "$status" = 125 ]
    run warmpool cp "$BATS_TEST_TMPDIR/nothing" "$id:x"
    [ "$status" = 125 ]
    run warmpool cp "$BATS_TEST_TMPDIR/tree" "$id:/etc/x" # read-only
    [ "$status" = 125 ]
    [ "$(inside "$id" echo fine)" = fine ]
}

@test "files over plain HTTP" {
    id=$(api POST /v1/leases -d '{"agentType":"coder"}' | jq -r .id)
    head -c 1000000 /dev/urandom >"$BATS_TEST_TMPDIR/f"
    [ "$(api PUT "/v1/leases/$id/files?path=/workspace/a/b" --data-binary @"$BATS_TEST_TMPDIR/f" | jq .bytes)" = 1000000 ]
    api GET "/v1/leases/$id/files?path=/workspace/a/b" | cmp - "$BATS_TEST_TMPDIR/f"
    [ "$(api PUT "/v1/leases/$id/files?path=/workspace/empty" --data-binary '' -o /dev/null -w '%{http_code}')" = 201 ]
    [ "$(api GET "/v1/leases/$id/files?path=/workspace/empty" -o /dev/null -w '%{http_code} %{size_download}')" = "200 0" ]
    [ "$(api GET "/v1/leases/$id/files?path=/workspace/nothing" -o /dev/null -w '%{http_code}')" = 404 ]
    [ "$(api GET "/v1/leases/$id/files?path=relative" -o /dev/null -w '%{http_code}')" = 400 ]
    [ "$(api GET "/v1/leases/$id/files" -o /dev/null -w '%{http_code}')" = 400 ]
    [ "$(api GET "/v1/leases/$id/files?path=/workspace" | jq -r .error.message)" != null ]
    [ "$(api PUT "/v1/leases/$id/files?path=/etc/shadow" --data-binary x -o /dev/null -w '%{http_code}')" = 422 ]
}

@test "it ends when it was not used for its time to live; a task renews it" {
    id=$(warmpool lease coder --ttl 1500ms)
    for _ in 1 2 3; do
        sleep 0.8
        inside "$id" true
    done
    [ "$(lease_of "$id" .state)" = held ]
    eventually 5 no_leases
    run warmpool exec "$id" -- true
    [ "$status" = 125 ]
    [[ $output == *"there is no lease"* ]]
}

@test "a task that is longer than the time to live is not cut off" {
    id=$(warmpool lease coder --ttl 500ms)
    [ "$(inside "$id" sh -c 'sleep 2; echo whole')" = whole ]
    [ "$(inside "$id" echo again)" = again ]
}

@test "renew changes the time to live" {
    id=$(warmpool lease coder --ttl 1s)
    warmpool renew "$id" --ttl 10m
    sleep 2
    [ "$(lease_of "$id" .ttlMs)" = 600000 ]
    [ "$(api PUT "/v1/leases/$id" -d '{"ttl":1}' -o /dev/null -w '%{http_code}')" = 400 ]
    [ "$(api PUT "/v1/leases/$id" -d '{"ttlMs":-1}' -o /dev/null -w '%{http_code}')" = 400 ]
}

@test "released twice, used after its end: errors that say so" {
    id=$(warmpool lease coder)
    warmpool release "$id"
    run warmpool release "$id"
    [ "$status" = 125 ]
    [[ $output == *"there is no lease"* ]]
    [ "$(api DELETE "/v1/leases/$id" -o /dev/null -w '%{http_code}')" = 404 ]
    [ "$(api POST "/v1/leases/$id/tasks" -d '{"command":["true"]}' -o /dev/null -w '%{http_code}')" = 404 ]
    run warmpool cp "$id:x" "$BATS_TEST_TMPDIR/x"
    [ "$status" = 125 ]
}

@test "release ends what runs in it" {
    id=$(warmpool lease coder)
    inside "$id" sleep 1000 &
    task=$!
    sleep 0.3
    warmpool release "$id"
    status=0
    wait $task || status=$?
    [ $status = 130 ]
    eventually 5 no_leases
}

@test "hold: it lasts as long as the connection, also when the client is killed" {
    "$BUILD/warmpool" --socket "$SOCKET" lease coder --hold >"$BATS_TEST_TMPDIR/id" &
    holder=$!
    eventually 5 test -s "$BATS_TEST_TMPDIR/id"
    id=$(cat "$BATS_TEST_TMPDIR/id")
    inside "$id" sleep 1000 &
    task=$!
    sleep 0.3
    [ "$(lease_of "$id" .hold)" = true ]
    kill -9 $holder
    eventually 5 no_leases
    status=0
    wait $task || status=$?
    [ $status = 130 ]
}

@test "a client that goes while it waits for a lease leaves nothing" {
    id=$(warmpool lease single)
    timeout 0.5 "$BUILD/warmpool" --socket "$SOCKET" lease single || true
    [ "$(warmpool leases --json | jq length)" = 1 ]
    warmpool release "$id"
    eventually 5 no_leases
    wp_run single -- true
}

@test "its container dies: the lease ends, its task is lost, the next lease works" {
    id=$(warmpool lease coder)
    inside "$id" sleep 1000 &
    task=$!
    sleep 0.3
    docker kill "$(lease_of "$id" .containerId)" >/dev/null
    status=0
    wait $task || status=$?
    [ $status = 125 ]
    eventually 10 no_leases
    id=$(warmpool lease coder)
    [ "$(inside "$id" echo well)" = well ]
}

@test "one that is held for long is reported as forgotten" {
    id=$(warmpool lease coder)
    overdue() { [ "$(lease_of "$id" .overdue)" = true ]; }
    eventually 5 overdue
    grep -q "lease $id of coder is held for" "$DAEMON_LOG"
}

@test "bad requests say what is wrong" {
    for body in '{}' '{"agentType":3}' '{"agentType":"coder","ttlMs":"x"}' '{"agentType":"coder","hold":1}' '{"agentType":"Coder!"}' \
        '{"agentType":"coder","nonsense":1}' '[]' '{' '{"agentType":"coder","priority":"urgent"}'; do
        [ "$(api POST /v1/leases -d "$body" -o /dev/null -w '%{http_code}')" = 400 ]
    done
    id=$(warmpool lease coder)
    [ "$(api POST "/v1/leases/$id/tasks" -d '{}' -o /dev/null -w '%{http_code}')" = 400 ]
    [ "$(api POST "/v1/leases/$id/tasks" -d '{"agentType":"tester","command":["true"]}' -o /dev/null -w '%{http_code}')" = 400 ]
    run warmpool exec nonsense -- true
    [ "$status" = 125 ]
    run warmpool cp a b
    [ "$status" = 125 ]
    run warmpool cp "$id:a" "$id:b"
    [ "$status" = 125 ]
}

@test "a terminal in a lease" {
    id=$(warmpool lease coder)
    [ "$(warmpool exec "$id" -t -- sh -c 'test -t 1 && echo terminal' </dev/null | tr -d '\r')" = terminal ]
}
