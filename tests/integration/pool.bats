# The pool, through the daemon: reuse, growth, order, replacement, sizes.
load helper

setup_file() {
    daemon_start maxPoolSize=3 agentConfigs.once.enableContainerReuse=false agentConfigs.single.maxPoolSize=1
}
teardown_file() { daemon_finish; }
teardown() { audit; }

@test "the same container goes on after an ordinary task" {
    first=$(container_of coder)
    eventually 5 pool_settles coder 1
    second=$(container_of coder)
    [ -n "$first" ]
    [ "$first" = "$second" ]
}

@test "what a task leaves is gone when the next one comes, in the same container" {
    before=$(wp_run coder --json -- sh -c 'touch /tmp/mine /workspace/mine /dev/shm/mine; (sleep 1000 &) ; true')
    eventually 5 pool_settles coder 1
    after=$(wp_run coder --json -- sh -c 'ls -A /tmp /workspace /dev/shm; ps | grep -c "[s]leep 1000" || true')
    [ "$(jq -r .metadata.containerId <<<"$before")" = "$(jq -r .metadata.containerId <<<"$after")" ]
    [ "$(jq -r .output <<<"$after")" = $'/dev/shm:\n\n/tmp:\n\n/workspace:\n0' ] ||
        [ "$(jq -r '.output | gsub("[^0-9a-z]"; "")' <<<"$after")" = "tmpworkspacedevshm0" ]
}

@test "execCount counts the tasks of a container" {
    first=$(wp_run coder --json -- true | jq .metadata.execCount)
    eventually 5 pool_settles coder 1
    second=$(wp_run coder --json -- true | jq .metadata.execCount)
    [ "$second" = $((first + 1)) ]
}

@test "enableContainerReuse false gives each task a container that never served another, still warm" {
    warmpool warm once 1
    seen=""
    for _ in 1 2 3; do
        result=$(wp_run once --json -- true)
        id=$(jq -r .metadata.containerId <<<"$result")
        [[ "$seen" != *"$id"* ]]
        [ "$(jq .metadata.execCount <<<"$result")" = 1 ]
        [ "$(jq .hit <<<"$result")" = true ]
        seen="$seen $id"
        eventually 10 pool_settles once 1
    done
}

@test "a pool grows to maxPoolSize on misses and no further" {
    for n in 1 2 3 4 5; do
        wp_run grower --json -- sleep 1 >"$BATS_TEST_TMPDIR/$n" &
    done
    wait
    [ "$(jq -s 'map(.success) | all' "$BATS_TEST_TMPDIR"/[1-5])" = true ]
    [ "$(jq -r .metadata.containerId "$BATS_TEST_TMPDIR"/[1-5] | sort -u | wc -l)" -le 3 ]
    [ "$(jq -r .metadata.containerId "$BATS_TEST_TMPDIR"/[1-5] | sort -u | wc -l)" -ge 2 ]
    [ "$(pool_of grower .total)" -le 3 ]
}

@test "tasks that wait are served first come first served" {
    warmpool warm single 1
    wp_run single -- sleep 1.5 &
    sleep 0.4
    for n in 1 2 3 4 5 6; do
        wp_run single -- sh -c 'cat /proc/uptime' | cut -d' ' -f1 >"$BATS_TEST_TMPDIR/$n" &
        sleep 0.1
    done
    wait
    cd "$BATS_TEST_TMPDIR"
    cat 1 2 3 4 5 6
    [ "$(cat 1 2 3 4 5 6 | wc -l)" = 6 ]
    cat 1 2 3 4 5 6 | sort -n -c
}

@test "a task that waited for a busy container is a hit, one that waited for creation a miss" {
    warmpool warm single 1
    wp_run single -- sleep 0.5 &
    sleep 0.2
    [ "$(wp_run single --json -- true | jq .hit)" = true ]
    wait
    [ "$(wp_run firstuse --json -- true | jq .hit)" = false ]
}

@test "a container that died is replaced" {
    eventually 5 pool_settles coder 1
    old=$(container_of coder)
    eventually 5 pool_settles coder 1
    docker kill "$old" >/dev/null
    replaced() { [ "$(known_containers)" != "" ] && ! known_containers | grep -q "$old" && pool_settles coder 1; }
    eventually 15 replaced
    new=$(container_of coder)
    [ "$new" != "$old" ]
}

@test "a task whose container is killed is lost, and says so with 125" {
    wp_run coder --json -- sleep 30 >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" &
    task=$!
    busy() { [ "$(pool_of coder .busy)" = 1 ]; }
    eventually 5 busy
    docker kill "$(api GET /v1/containers | jq -r '.[] | select(.isInUse) | .containerId')" >/dev/null
    status=0
    wait $task || status=$?
    cat "$BATS_TEST_TMPDIR/err" "$BATS_TEST_TMPDIR/out"
    [ $status = 125 ]
    [ "$(jq -r .outcome "$BATS_TEST_TMPDIR/out")" = lost ]
    eventually 15 pool_settles coder 1
}

@test "scale pins a size, auto gives it back" {
    warmpool scale coder 3
    eventually 20 pool_settles coder 3
    [ "$(pool_of coder .pinned)" = true ]
    warmpool scale coder 1
    eventually 20 pool_settles coder 1
    warmpool scale coder auto
    [ "$(pool_of coder .pinned)" = false ]
}

@test "scale refuses what is above maxPoolSize and says so" {
    run warmpool scale coder 4
    [ "$status" != 0 ]
    [[ "$output" == *3* ]]
}

@test "warm makes sure that N are there when it returns, without pinning" {
    warmpool warm planner 2
    [ "$(pool_of planner '.idle')" = 2 ]
    [ "$(pool_of planner .pinned)" = false ]
}

@test "refresh replaces an idle container" {
    old=$(container_of coder)
    eventually 5 pool_settles coder 1
    api POST "/v1/containers/$old/refresh" | jq -e .refreshing
    gone() { ! known_containers | grep -q "$old"; }
    eventually 15 gone
    eventually 15 pool_settles coder 1
}

@test "a fresh task gets a container that never served another" {
    for _ in 1 2; do
        result=$(wp_run coder --fresh --json -- true)
        [ "$(jq .metadata.execCount <<<"$result")" = 1 ]
        eventually 15 pool_settles coder "$(pool_of coder .target)"
    done
}

@test "an unknown agent type gets the default profile on its first use; a wrong name is refused" {
    wp_run something-new -- true
    run wp_run 'No_Such' -- true
    [ "$status" = 125 ]
    [[ "$output" == *No_Such* ]]
}

@test "several types warm up in parallel while tasks are served" {
    for type in a b c; do warmpool warm $type 2 & done
    wp_run coder -- true
    wait
    for type in a b c; do [ "$(pool_of $type .idle)" = 2 ]; done
}
