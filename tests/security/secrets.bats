# Secrets: what a task gets, that nobody else does, and that they are nowhere afterwards. Each search is first seen to find
# what it looks for.

load ../integration/helper

setup_file() {
    daemon_start logLevel=debug networkMode=none warmupAgentTypes=coder
}

teardown_file() {
    daemon_finish
}

teardown() {
    audit
}

marker() {
    echo "mark$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')"
}

# Over the API with curl: the command line's own memory is not looked at here.
post_secret() { # post_secret VALUE COMMAND...
    local value=$1
    shift
    jq -cn --arg value "$value" --arg id "${TASK_ID:-$(marker)}" '{agentType: "coder", id: $id, command: $ARGS.positional, captureOutput: true,
        secrets: {TOKEN: $value, PLAIN: {value: $value, as: "env"}, CODED: {value: ($value | @base64), encoding: "base64"}}}' --args -- "$@" |
        api POST /v1/tasks --data-binary @-
}

init_of_coder() {
    api GET /v1/containers | jq -r '.[] | select(.agentType == "coder") | .containerId' | head -n 1 | xargs docker inspect --format '{{.State.Pid}}'
}

# memory_has PID TEXT: in any writable mapping.
memory_has() {
    python3 - "$1" "$2" <<'PY'
import sys
pid, text, found = sys.argv[1], sys.argv[2].encode(), False
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
    for line in maps:
        span, rights = line.split()[:2]
        if not rights.startswith("rw"):
            continue
        low, high = (int(end, 16) for end in span.split("-"))
        mem.seek(low)
        try:
            found |= text in mem.read(high - low)
        except OSError:
            pass
sys.exit(0 if found else 1)
PY
}

@test "a secret is a memory file with a path and a number, and cannot be changed" {
    run -0 wp_run coder --secret TOKEN=hello --secret KEY=other -- sh -c '
        echo "$WARMPOOL_SECRET_TOKEN $WARMPOOL_SECRETFD_TOKEN $WARMPOOL_SECRET_KEY $WARMPOOL_SECRETFD_KEY"
        cat "$WARMPOOL_SECRET_TOKEN" "$WARMPOOL_SECRET_TOKEN" /proc/self/fd/4; echo; cat <&3; echo
        readlink /proc/self/fd/3'
    [ "${lines[0]}" = "/proc/self/fd/3 3 /proc/self/fd/4 4" ]
    [ "${lines[1]}" = hellohelloother ]
    [ "${lines[2]}" = hello ]
    [ "${lines[3]}" = "/memfd:secret (deleted)" ]
    run -0 wp_run coder --secret TOKEN=hello -- sh -c '
        (echo x >&3) 2>&1; (echo x >/proc/self/fd/3) 2>&1; (echo x >>/proc/self/fd/3) 2>&1; cat /proc/self/fd/3'
    [ "$(grep -c 'not permitted' <<<"$output")" = 3 ]
    [ "${lines[-1]}" = hello ]
    run -0 wp_run coder -t --secret TOKEN=hello -- sh -c 'cat $WARMPOOL_SECRET_TOKEN; test -t 0 && test -t 2 && echo .'
    [[ $output == hello.* ]]
}

@test "it may hold any bytes, up to 64 KiB, and there may be 32" {
    local file=$BATS_TEST_TMPDIR/bytes many=() i
    head -c 65536 /dev/urandom >"$file"
    run -0 wp_run coder --secret "KEY=@$file" -- sha256sum /proc/self/fd/3
    [ "${output%% *}" = "$(sha256sum <"$file" | cut -d' ' -f1)" ]
    printf 'two\nlines\n\n' >"$file"
    run -0 wp_run coder --secret "KEY=@$file" --secret-env "VARIABLE=@$file" -- sh -c 'cmp /proc/self/fd/3 - <<END && printf %s "$VARIABLE" | cmp - /proc/self/fd/3 && echo same
two
lines

END'
    [ "$output" = same ]
    for ((i = 0; i < 32; i++)); do many+=(--secret "S$i=value $i"); done
    run -0 wp_run coder "${many[@]}" -- sh -c 'for i in $(seq 0 31); do cat /proc/self/fd/$((i + 3)); done; ls /proc/self/fd | wc -l'
    [[ $output == "value 0value 1"*"value 3136" ]] # 0, 1, 2, 32 of them, and the directory
    run -0 wp_run coder --secret EMPTY= --secret-env NONE= -- sh -c 'wc -c </proc/self/fd/3; echo "[${NONE-unset}]"'
    [ "$output" = $'0\n[]' ]
    [ "$(echo from stdin | warmpool run coder --secret KEY=@- -- cat /proc/self/fd/3)" = "from stdin" ]
}

refused() { # refused WORDS OPTIONS...
    local words=$1
    shift
    run -125 wp_run coder "$@" -- true
    [[ $output == *"$words"* ]] || { echo "$output" && return 1; }
    [[ $output != *sesame* ]]
}

@test "what is wrong is said, and never the value" {
    local file=$BATS_TEST_TMPDIR/bytes many=() i
    refused "must be NAME=VALUE" --secret opensesame
    refused "letters, digits and _" --secret 1A=opensesame
    refused "letters, digits and _" --secret "A B=opensesame"
    refused "given twice" --secret A=opensesame --secret A=b
    refused "WARMPOOL_" --secret-env WARMPOOL_A=opensesame
    refused "env set the same variable" -e A=b --secret-env A=opensesame
    refused "env set the same variable" -e WARMPOOL_SECRET_A=b --secret A=opensesame
    refused "No such file" --secret A=@/nonexistent
    head -c 65537 /dev/zero >"$file"
    refused "65536 bytes" --secret "A=@$file"
    printf 'a\0sesame' >"$file"
    refused "NUL" --secret-env "A=@$file"
    for ((i = 0; i < 33; i++)); do many+=(--secret "S$i=sesame"); done
    refused "32 secrets" "${many[@]}"
    local body
    for body in '"secrets": "sesame"' '"secrets": ["sesame"]' '"secrets": {"A": 5}' '"secrets": {"A": {"value": "sesame", "as": "sesame"}}' \
        '"secrets": {"A": {"value": "sesame!", "encoding": "base64"}}' '"secrets": {"A": {"valu": "sesame"}}' '"secrets": {"A": "sesame"' \
        '"secrets": {"A": "sesame" "sesame"}' '"secrets": {"A": {"value": "a\u0000sesame", "as": "env"}}' '"secrets": {"": "sesame"}'; do
        run -0 api POST /v1/tasks -w '%{http_code}' -d "{\"agentType\": \"coder\", \"command\": [\"true\"], $body}"
        [[ $output == *400 && $output != *sesame* ]] || { echo "$body: $output" && return 1; }
    done
}

@test "the next task has none of it, nor has a lease's next one" {
    local lease word
    word=$(marker)
    wp_run coder --secret "A=$word" --secret-env "B=$word" -- true
    run -0 wp_run coder -- sh -c 'env; ls -l /proc/self/fd /proc/1/fd 2>/dev/null; tr "\0" "\n" </proc/1/environ 2>/dev/null; :'
    [[ $output != *WARMPOOL_SECRET* && $output != *memfd* && $output != *"$word"* && $output == *AGENT_TYPE* ]]
    lease=$(warmpool lease coder)
    run -0 warmpool exec "$lease" --secret "A=$word" --secret-env "B=$word" -- sh -c 'cat /proc/self/fd/3; echo "$B"; sleep 1000 & echo $! >/workspace/pid' </dev/null
    [ "${lines[0]}" = "$word$word" ]
    run -0 warmpool exec "$lease" -- sh -c 'env; ls -l /proc/self/fd; cat /proc/self/fd/3 2>&1; :' </dev/null
    [[ $output != *memfd* && $output != *"$word"* ]]
    # A process that was left running still has it, as it should: this is how the look above would have seen one.
    run -0 warmpool exec "$lease" -- sh -c 'ls -l /proc/$(cat /workspace/pid)/fd' </dev/null
    [[ $output == *memfd* ]]
    warmpool release "$lease"
}

nowhere() { # nowhere WORD TASK-ID CONTAINER-ID
    ! docker inspect "$3" | grep -F "$1" || return 1
    docker inspect "$3" --format '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}' |
        xargs -r docker volume inspect | grep -F "$1" && return 1
    ! grep -F "$1" "$DAEMON_LOG" || return 1
    ! timeout 20 "$BUILD/warmpool" --socket "$SOCKET" events --no-follow --json | grep -F "$1" || return 1
    ! api GET "/v1/tasks/$2" | grep -F "$1" || return 1
    ! api GET /v1/status | grep -F "$1" || return 1
    ! grep -rF --devices=skip "$1" "$STATE" || return 1
    ! grep -rlF --devices=skip "$1" "$(docker info --format '{{.DockerRootDir}}')/containers/$3" || return 1
    ! docker logs "$3" 2>&1 | grep -F "$1" || return 1
}

@test "it is in no configuration, log, event, history or file" {
    local word control id result container
    word=$(marker) control=$(marker)
    # Controls: what an agent type's variable, a task's id and a task's output hold is found by the same look.
    run -0 wp_run coder --json --id "$control" -- true
    container=$(jq -r .metadata.containerId <<<"$output")
    grep -qF "$(docker inspect --format '{{.Name}}' "$container" | tr -d /)" "$DAEMON_LOG"
    grep -rqF --devices=skip swarm "$STATE/containers" || [ "$(api GET /v1/status | jq -r .engine.transport)" = attach ]
    docker inspect "$container" | grep -qF AGENT_TYPE=coder
    grep -qF AGENT_TYPE=coder -r --devices=skip "$(docker info --format '{{.DockerRootDir}}')/containers/$container"
    timeout 20 "$BUILD/warmpool" --socket "$SOCKET" events --no-follow --json | grep -qF "$control"
    api GET "/v1/tasks/$control" | grep -qF "$control"
    run ! nowhere "$control" "$control" "$container"

    result=$(post_secret "$word" sh -c 'test -n "$PLAIN" && cmp /proc/self/fd/3 /proc/self/fd/4; sleep 0.1')
    [ "$(jq -r .exitCode <<<"$result")" = 0 ]
    id=$(jq -r .metadata.taskId <<<"$result") container=$(jq -r .metadata.containerId <<<"$result")
    nowhere "$word" "$id" "$container"
    # One that could not be executed, and one that is refused.
    run -0 post_secret "$word" /nonexistent
    [[ $output != *"$word"* ]]
    nowhere "$word" "$(jq -r .metadata.taskId <<<"$output")" "$container"
    run -0 api POST /v1/tasks -d "{\"agentType\": \"coder\", \"command\": [], \"secrets\": {\"A\": \"$word\"}}"
    [[ $output != *"$word"* && $output == *command* ]]
    nowhere "$word" "$id" "$container"
}

arguments_have() { # arguments_have TEXT: of any process, or its environment
    local file
    for file in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do
        tr '\0' ' ' <"$file" 2>/dev/null | grep -qF -- "$1" && return 0
    done
    return 1
}

@test "no argument list on this machine shows it" {
    local word background
    word=$(marker)
    echo "$word" >"$BATS_TEST_TMPDIR/word"
    "$BUILD/warmpool" --socket "$SOCKET" run coder --secret "A=@$BATS_TEST_TMPDIR/word" -- sh -c 'read a </proc/self/fd/3; exec sleep 31.5' </dev/null >/dev/null 2>&1 3>&- &
    background=$!
    eventually 20 a_process_with "sleep 31.5" # a control too: argument lists are read
    run ! arguments_have "$word"
    arguments_have "sleep 31.5"
    kill -TERM "$background"
    wait "$background" || true
}

@test "neither the daemon's memory nor the runner's has it afterwards" {
    local word large plain init background
    word=$(marker) large=$(marker) plain=$(marker)
    wp_run coder -- true
    init=$(init_of_coder)
    memory_has "$init" AGENT_TYPE=coder # the look itself
    # While the task runs the daemon keeps it, in case the connection breaks before the runner has it.
    TASK_ID=$large post_secret "$word" sleep 35.5 >/dev/null 3>&- &
    background=$!
    eventually 20 a_process_with "sleep 35.5"
    memory_has "$DAEMON_PID" "$word"
    run ! memory_has "$init" "$word"
    api DELETE "/v1/tasks/$large" >/dev/null
    wait "$background"
    large=$(marker)
    run ! memory_has "$DAEMON_PID" "$word"
    run ! memory_has "$init" "$word"
    # One that fills buffers: in pieces, from the socket to the RUN frame.
    post_secret "$large$(head -c 60000 /dev/zero | tr '\0' x)$large" true >/dev/null
    wp_run coder --secret "A=$large" -- true
    run ! memory_has "$DAEMON_PID" "$large"
    run ! memory_has "$init" "$large"
    [ "$(init_of_coder)" = "$init" ]
    # Refused ones.
    api POST /v1/tasks -d "{\"agentType\": \"coder\", \"command\": [], \"secrets\": {\"A\": \"$plain\"}}" >/dev/null
    api POST /v1/tasks -d "{\"agentType\": \"coder\", \"secrets\": {\"A\": \"$plain\"} \"$plain" >/dev/null
    run ! memory_has "$DAEMON_PID" "$plain"
}

@test "nobody but root could read the daemon, and it leaves no core" {
    run -0 grep "Max core file size  *0  *0 " "/proc/$DAEMON_PID/limits"
    # /proc belongs to root where a process is not dumpable; ours runs as root, so its owner shows nothing here.
    run ! setpriv --reuid 65534 --clear-groups cat "/proc/$DAEMON_PID/environ"
    run -0 wp_run coder -- sh -c 'ulimit -c; ulimit -Hc'
    [ "$output" = $'0\n0' ]
}

@test "controls: without its defences the same looks find them" {
    local word init
    [ -x "$BUILD/weak/src/daemon/warmpoold" ] || skip "no build with defences off: make weak"
    word=$(marker)
    (
        WARMPOOL_WEAKEN="coder=wipe-memory,secret-seal" WEAK=1 daemon_start networkMode=none
        post_secret "$word" true >/dev/null
        memory_has "$(init_of_coder)" "$word" && wp_run coder --secret TOKEN=hello -- sh -c 'echo x >&3 && cat /proc/self/fd/3'
        echo "$?" >"$BATS_TEST_TMPDIR/result"
        daemon_finish
    )
    [ "$(cat "$BATS_TEST_TMPDIR/result")" = 0 ]
}
