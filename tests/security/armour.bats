# The runner, attacked by its tasks: what the filter refuses, what can be seen of PID 1, what is left in its memory, who is heard
# on its socket. Each has its control: the same probe with that one defence off (a daemon made for it: src/wire/weaken.h).
load ../integration/helper

OPEN='{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]}'
# An engine's profile that refuses nothing, so that the filter stands alone.

setup_file() {
    mkdir "$BATS_FILE_TMPDIR/bin"
    cp "$(realpath "${BUILD:-$ROOT/build}")/tests/security/probe-armour" "$BATS_FILE_TMPDIR/bin/probe"
    chmod 755 "$BATS_FILE_TMPDIR" "$BATS_FILE_TMPDIR/bin" "$BATS_FILE_TMPDIR/bin/probe"
    daemon_place
    DAEMON_CONFIG=$PLACE/config.yaml
    export DAEMON_CONFIG
    cat >"$DAEMON_CONFIG" <<YAML
networkMode: none
volumeMounts: ["$BATS_FILE_TMPDIR/bin:/probes"]
agentConfigs:
  coder: {cpus: 2}
  bare: {securityOpts: ['seccomp=$OPEN']}
  unfiltered: {securityOpts: ['seccomp=$OPEN']}
  dumpable: {securityOpts: ['seccomp=$OPEN']}
  remembering: {cpus: 2}
YAML
    WEAK=1 WARMPOOL_WEAKEN="unfiltered=filter;dumpable=dumpable;remembering=wipe-memory" \
        daemon_start_here warmupAgentTypes=coder,bare,unfiltered,dumpable,remembering
}
teardown_file() { daemon_finish; }
teardown() { audit; }

probe() { # TYPE MODE [ARGUMENT...]
    local type=$1
    shift
    wp_run "$type" -- /probes/probe "$@"
}

pid_of() { # TYPE: of its one container's PID 1, on the host
    api GET /v1/containers | jq -r --arg type "$1" '.[] | select(.agentType == $type) | .containerId' |
        xargs docker inspect --format '{{.State.Pid}}'
}

# all REFUSED|REACHED LEAST OUTPUT: every line of it says so, and there are that many.
all() {
    local wrong
    wrong=$(awk -F '\t' -v as="$1" '$2 != as' <<<"$3")
    [ -z "$wrong" ] || { echo "not $1: $wrong"; return 1; }
    [ "$(wc -l <<<"$3")" -ge "$2" ]
}

# --- the filter ---------------------------------------------------------------------------------------------

@test "what the filter refuses is refused beside the engine's profile" {
    output=$(probe coder calls)
    # The engine may refuse a call first, with an errno of its own.
    wrong=$(awk -F '\t' '$2 != "refused" && $3 !~ /^(1|38|97)$/' <<<"$output")
    [ -z "$wrong" ] || { echo "$wrong"; return 1; }
    [ "$(wc -l <<<"$output")" -ge 50 ]
}

@test "and by the filter alone, where the engine's profile refuses nothing" {
    all refused 50 "$(probe bare calls)"
}

@test "control: without the filter every one of these calls is reached" {
    all reached 50 "$(probe unfiltered calls)"
}

# --- PID 1's process ----------------------------------------------------------------------------------------

@test "PID 1 can neither be traced nor read nor written" {
    all refused 25 "$(probe bare process)"
    wrong=$(probe coder process | awk -F '\t' '$2 != "refused" && $3 !~ /^(1|13|38)$/')
    [ -z "$wrong" ] || { echo "$wrong"; return 1; }
}

@test "control: where it is dumpable every one of these ways is open" {
    all reached 25 "$(probe dumpable process)"
}

@test "its file can only be executed, and is not the container's" {
    pid=$(pid_of coder)
    [ "$(stat -L -c '%a %u' "/proc/$pid/exe")" = "711 0" ]
    [ "$(awk '/^Uid/ {print $2}' "/proc/$pid/status")" -ge 2000000000 ]
    [ "$(awk '/^Seccomp:/ {print $2}' "/proc/$pid/status")" = 2 ]
}

@test "a task has three descriptors, and PID 1's command line and environment say nothing" {
    [ "$(probe coder descriptors | sort | tr '\n' ' ')" = "0 1 2 " ]
    pid=$(pid_of coder)
    wp_run coder -e MARK=enviromarker -- true argmarker
    run grep -aE "marker|TOKEN" "/proc/$pid/cmdline" "/proc/$pid/environ"
    [ "$status" = 1 ]
}

# --- its memory -----------------------------------------------------------------------------------------------

# leave TYPE: a task whose every part has a word of its own; a large RUN, a long output, stdin, a file in and a file out.
WORDS=(word-of-argv word-of-env word-of-large-argv word-of-stdin word-of-stdout word-of-long-stdout word-of-stderr word-of-workdir
    word-of-path word-of-program word-of-file-in word-of-file-out word-of-name-in word-of-name-out word-of-made-name word-of-last-argv word-of-last-env)
leave() {
    local type=$1 large
    large=$(printf 'word-of-large-argv %.0s' {1..6000})
    printf 'word-of-stdin\n%.0s' {1..3000} | warmpool run -i "$type" -e KEY=word-of-env -- sh -c \
        'mkdir -p /workspace/word-of-workdir; touch /workspace/word-of-made-name; cat >/dev/null;
         echo word-of-stdout; seq 100000 | sed s/^/word-of-long-stdout/; echo word-of-stderr >&2' word-of-argv >/dev/null 2>&1
    wp_run "$type" -e PATH=/word-of-path:/bin -- word-of-program >/dev/null 2>&1 || true
    warmpool run "$type" -- sh -c : "$large" </dev/null
    wp_run "$type" -- sh -c 'echo word-of-stdout; echo word-of-stderr >&2' >/dev/null 2>&1
    eventually 10 pool_settles "$type" 1
    mkdir -p "$BATS_TEST_TMPDIR/word-of-name-in"
    echo word-of-file-in >"$BATS_TEST_TMPDIR/word-of-name-in/one"
    local lease
    lease=$(warmpool lease "$type")
    warmpool cp "$BATS_TEST_TMPDIR/word-of-name-in" "$lease:/workspace/there"
    warmpool exec "$lease" -- sh -c 'echo word-of-file-out >/workspace/word-of-name-out' </dev/null
    warmpool cp "$lease:/workspace/word-of-name-out" "$BATS_TEST_TMPDIR/out"
    warmpool release "$lease" >/dev/null
    eventually 10 pool_settles "$type" 1
    wp_run "$type" -e KEY=word-of-last-env -- sh -c : word-of-last-argv
    eventually 10 pool_settles "$type" 1
}

found() { # TYPE: the words that are in its PID 1's memory
    "$BATS_FILE_TMPDIR/bin/probe" search "$(pid_of "$1")" "${WORDS[@]}" >"$BATS_TEST_TMPDIR/found" || return 2
    sort -u "$BATS_TEST_TMPDIR/found"
}

@test "nothing of the last task is in PID 1's memory after the reset" {
    before=$(pid_of coder)
    leave coder
    [ "$(pid_of coder)" = "$before" ]
    left=$(found coder)
    [ -z "$left" ] || { echo "$left"; return 1; }
}

@test "control: it is there when memory is not wiped" {
    leave remembering
    left=$(found remembering)
    echo "$left"
    for word in large-argv stdin stdout long-stdout stderr file-out name-out last-argv last-env; do
        grep -qx "word-of-$word" <<<"$left"
    done
}

# --- signals and connections -----------------------------------------------------------------------------------

@test "all 64 signals by every call, forged and in a flood, change nothing" {
    pid=$(pid_of coder)
    digest() { sed -n '/^Sig\|^Shd/p; /^Cap/p; /^Threads/p; /^State:.*Z/p' "/proc/$pid/status" | grep -v SigQ; }
    before=$(digest)
    probe coder signals
    eventually 10 pool_settles coder 1
    [ "$(pid_of coder)" = "$pid" ]
    [ "$(digest)" = "$before" ]
    [ "$(wp_run coder -- echo alive)" = alive ]
}

@test "10,000 connections with forged frames to the runner's socket are not heard" {
    [ "${TRANSPORT:-}" != attach ] || skip "it has no socket"
    made=$(probe coder connects /.warmpool/sock 10000)
    [ "$made" -gt 1000 ]
    # Those that the daemon has not closed yet when the reset counts are residue: the container may go for it.
    eventually 15 pool_settles coder 1
    [ "$(wp_run coder -- echo alive)" = alive ]
    # None of them stays open.
    [ "$(find "/proc/$DAEMON_PID/fd" -lname 'socket:*' | wc -l)" -lt 100 ]
}
