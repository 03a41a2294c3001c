# Files in and out with a task: what arrives, what is refused, and that nothing of them is left.
load helper

setup_file() { daemon_start poolSize=2 agentConfigs.coder.memory=512m; }
teardown_file() { daemon_finish; }
setup() {
    HERE=$BATS_TEST_TMPDIR
    mkdir -p "$HERE/in/sub" "$HERE/out"
    echo hello >"$HERE/in/a"
    echo deep >"$HERE/in/sub/b"
    : >"$HERE/in/empty"
    chmod 750 "$HERE/in/a"
    ln -s a "$HERE/in/link"
    touch -d '2020-02-02 02:02:02' "$HERE/in/a"
}
teardown() { audit; }

copied() { # FROM TO: the same trees
    diff <(cd "$1" && find . -printf '%P %y %m %s %l\n' | sed 's/^\(.* d [0-9]* \)[0-9]*/\1/' | sort) \
        <(cd "$2" && find . -printf '%P %y %m %s %l\n' | sed 's/^\(.* d [0-9]* \)[0-9]*/\1/' | sort) && diff -r --no-dereference "$1" "$2"
}

@test "a directory there and back: modes, times, links, empty files" {
    wp_run coder --copy-in "$HERE/in:/workspace/" --copy-out "/workspace/in:$HERE/out/back" -- true
    copied "$HERE/in" "$HERE/out/back"
    [ "$(stat -c %Y "$HERE/out/back/a")" = "$(stat -c %Y "$HERE/in/a")" ]
}

@test "names of every kind" {
    printf x >"$HERE/in/with space"
    printf x >"$HERE/in/"$'new\nline'
    printf x >"$HERE/in/"$'\xff\xfe'
    printf x >"$HERE/in/$(printf 'n%.0s' $(seq 255))"
    wp_run coder --copy-in "$HERE/in/.:/workspace/x" --copy-out "/workspace/x/.:$HERE/out" -- true
    copied "$HERE/in" "$HERE/out"
}

@test "a file to a new name, to a directory, to a relative path; several copies in one run" {
    run -0 wp_run coder --copy-in "$HERE/in/a:/tmp/new" --copy-in "$HERE/in/a:/tmp/" --copy-in "$HERE/in/sub/b:r/s" \
        --copy-out "/tmp/new:$HERE/out/1" --copy-out "r/s:$HERE/out/2" -- sh -c 'cat /tmp/new /tmp/a /workspace/r/s'
    [ "$output" = $'hello\nhello\ndeep' ]
    [ "$(cat "$HERE/out/1" "$HERE/out/2")" = $'hello\ndeep' ]
}

@test "tar streams on stdin and stdout" {
    tar c -C "$HERE" in | "$BUILD/warmpool" --socket "$SOCKET" run coder --copy-in -:/workspace --copy-out /workspace/in:- -- \
        sh -c 'echo told; echo more >in/more' 2>"$HERE/told" | tar x -C "$HERE/out"
    echo more >"$HERE/in/more"
    diff -r --no-dereference "$HERE/in" "$HERE/out/in"
    [ "$(cat "$HERE/told")" = told ]
}

@test "64 MB there and back, bounded memory, the right sum" {
    head -c 64000000 /dev/urandom >"$HERE/large"
    local before after
    before=$(awk '/^VmHWM/ {print $2}' "/proc/$DAEMON_PID/status")
    [ "$(wp_run coder --copy-in "$HERE/large:/workspace/" --copy-out "/workspace/large:$HERE/out/" -- sha256sum large)" = \
        "$(cd "$HERE" && sha256sum large)" ]
    cmp "$HERE/large" "$HERE/out/large"
    after=$(awk '/^VmHWM/ {print $2}' "/proc/$DAEMON_PID/status")
    [ $((after - before)) -lt 16384 ]
}

@test "an 8 GiB sparse file costs nothing" {
    truncate -s 8G "$HERE/sparse"
    wp_run coder --copy-in "$HERE/sparse:/workspace/" --copy-out "/workspace/sparse:$HERE/out/" -- true
    [ "$(stat -c %s "$HERE/out/sparse")" = 8589934592 ]
    [ "$(du -k "$HERE/out/sparse" | cut -f1)" -lt 1024 ]
}

@test "what is refused on the way in: the task does not start, the container serves on" {
    local target
    for target in /etc/ /.warmpool/ / /workspace/../etc/x /proc/self/x; do
        run -125 wp_run coder --copy-in "$HERE/in:$target" -- echo started
        [[ "$output" != *started* ]] || { echo "$target was taken"; return 1; }
        [[ "$output" == *copy-in* ]]
    done
    run -125 wp_run coder --copy-in "$HERE/none:/workspace/" -- echo started
    [[ "$output" == *"No such file"* && "$output" != *started* ]]
    head -c 200000000 /dev/zero | tr '\0' x >"$HERE/toolarge"
    run -125 wp_run coder --copy-in "$HERE/toolarge:/workspace/" -- echo started
    [[ "$output" == *"no space"* && "$output" != *started* ]]
    [ "$(wp_run coder -- ls -A /workspace /tmp | grep -c large)" = 0 ]
}

@test "through a link that leads out: nothing arrives there" {
    ln -s /etc "$HERE/in/out"
    run -125 wp_run coder --copy-in "$HERE/in:/workspace/" --copy-in "$HERE/in/a:/workspace/in/out/x" -- echo started
    [[ "$output" != *started* ]]
}

@test "tars that are hostile or cut off: refused, nothing runs" {
    local i size
    tar c -P --transform 's,^,/abs/,' -C "$HERE" in >"$HERE/absolute.tar"
    tar c -P --transform 's,^in,../../up,' -C "$HERE" in >"$HERE/up.tar"
    mknod "$HERE/in/null" c 1 3
    tar c -C "$HERE" in >"$HERE/device.tar"
    rm "$HERE/in/null"
    for i in absolute up device; do
        run -125 bash -c '"$BUILD/warmpool" --socket "$SOCKET" run coder --copy-in -:/workspace -- echo started <"$0"' "$HERE/$i.tar"
        [[ "$output" != *started* ]] || { echo "$i was taken"; return 1; }
    done
    head -c 5000 /dev/urandom >"$HERE/in/random"
    tar c -C "$HERE" in >"$HERE/whole.tar"
    size=$(stat -c %s "$HERE/whole.tar")
    for i in 100 513 1500 3000 6000; do
        [ "$i" -lt "$size" ]
        run -125 bash -c 'head -c "$1" "$0" | "$BUILD/warmpool" --socket "$SOCKET" run coder --copy-in -:/workspace -- echo started' "$HERE/whole.tar" $i
        [[ "$output" != *started* ]] || { echo "cut at $i it was taken"; return 1; }
    done
    run -0 bash -c '"$BUILD/warmpool" --socket "$SOCKET" run coder --copy-in -:/workspace -- echo started <"$0"' "$HERE/whole.tar"
}

@test "what a task leaves to be copied out cannot harm this side" {
    mkdir "$HERE/canary"
    echo whole >"$HERE/canary/file"
    wp_run coder --copy-out "/workspace/evil:$HERE/out/evil" -- sh -c "mkdir evil; ln -s $HERE/canary evil/door; mkfifo evil/pipe; echo x >evil/x" || true
    [ "$(ls "$HERE/canary")" = file ] && [ "$(cat "$HERE/canary/file")" = whole ]
    [ ! -e "$HERE/out/evil/pipe" ]
    run wp_run coder --copy-out "/etc/passwd:$HERE/out/" -- true
    [ "$status" = 125 ] && [ ! -e "$HERE/out/passwd" ]
}

@test "the task's code stands; a copy that fails alone is 125" {
    run -7 wp_run coder --copy-out "/workspace/x:$HERE/out/" -- sh -c 'echo x >x; exit 7'
    [ "$(cat "$HERE/out/x")" = x ]
    run -7 wp_run coder --copy-out "/workspace/none:$HERE/out/" -- sh -c 'exit 7'
    run -125 wp_run coder --copy-out "/workspace/none:$HERE/out/" -- true
    run -124 wp_run --timeout 500ms coder --copy-out "/workspace/y:$HERE/out/" -- sh -c 'echo y >y; sleep 60'
    [ "$(cat "$HERE/out/y")" = y ]
}

@test "artifacts: text, bytes, directories, what is missing; over plain HTTP" {
    run -0 api POST /v1/tasks -d '{"agentType":"coder","command":["sh","-c","mkdir d; echo one >d/1; printf \"\\\\377\" >d/2; echo t >t"],"artifacts":["/workspace/d","/workspace/t","/workspace/none"]}'
    [ "$(jq -c '.artifacts | keys' <<<"$output")" = '["/workspace/d/1","/workspace/d/2","/workspace/t"]' ]
    [ "$(jq -r '.artifacts["/workspace/t"].content' <<<"$output")" = t ]
    [ "$(jq -r '.artifacts["/workspace/d/2"] | .encoding, .content' <<<"$output")" = $'base64\n/w==' ]
    [ "$(jq -r '.artifacts["/workspace/t"].sha256' <<<"$output")" = "$(echo t | sha256sum | cut -d' ' -f1)" ]
    [[ "$(jq -r .artifactsError <<<"$output")" == */workspace/none* ]]
    [ "$(jq -r .success <<<"$output")" = true ]
    [ "$(api POST /v1/tasks -d '{"agentType":"coder","command":["true"],"copyOut":["/workspace"]}' | jq -r .error.code)" = invalid ]
}

@test "a client that is killed in mid-copy leaves nothing" {
    head -c 60000000 /dev/urandom >"$HERE/large"
    local i client
    for i in 0.02 0.05 0.1 0.15; do
        "$BUILD/warmpool" --socket "$SOCKET" run coder --copy-in "$HERE/large:/workspace/" --copy-out "/workspace/large:$HERE/out/back" -- true </dev/null >/dev/null 2>&1 &
        client=$!
        sleep $i
        kill -KILL $client
        wait $client 2>/dev/null || true
    done
    eventually 20 pool_settles coder 2
    [ "$(wp_run coder -- ls -A /workspace)" = "" ]
    eventually 10 no_helpers
}

no_helpers() { ! pgrep -f "^[^ ]*warmpoold (pack|unpack) $BATS_TEST_TMPDIR" >/dev/null; }

@test "what packs is killed in the middle: the task is not started, at once" {
    "$BUILD/warmpool" --socket "$SOCKET" run coder --copy-in -:/workspace/t -- touch /tmp/begun 2>"$HERE/error" 3>&- \
        < <(tar c -C "$HERE" in | head -c 700; exec sleep 20) &
    local client=$! packer
    packs() { packer=$(pgrep -P "$client" warmpoold); }
    eventually 5 packs
    kill -KILL "$packer"
    status=0
    SECONDS=0
    wait $client || status=$?
    [ "$status" = 125 ]
    [ $SECONDS -lt 10 ]
    grep -q "ended before all was read" "$HERE/error"
}
