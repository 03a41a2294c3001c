# `transport: auto` finds out by its first container what works with the engine: a daemon in a container sees other processes
# and other files than the engine does.
load helper

setup() { daemon_place; }
teardown() {
    [ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 30 "$DAEMON_LOG" >&2
    daemon_finish
}

# elsewhere COMMAND...: the daemon, started by COMMAND, which puts it into other namespaces.
elsewhere() {
    WARMPOOL_CONFIG=/dev/null setsid "$@" "$BUILD/warmpoold" serve --socket "$SOCKET" --set stateDir="$STATE" --set poolSize=2 \
        --set warmupAgentTypes=coder --set autoScaling=false >>"$DAEMON_LOG" 2>&1 </dev/null 3>&- &
    DAEMON_PID=$!
    export DAEMON_PID
    eventually 60 daemon_is_ready
    INSTANCE=$(warmpool status --json | jq -r .instance)
    export INSTANCE
}

transport() { warmpool status --json | jq -r .engine.transport; }

works() {
    [ "$(wp_run coder -- echo works)" = works ]
    [ "$(seq 100000 | warmpool run -i coder -- md5sum)" = "$(seq 100000 | md5sum)" ]
}

@test "beside the engine: the socket" {
    elsewhere env
    [ "$(transport)" = socket ]
    works
}

@test "in a pid namespace of its own: the attach stream" {
    elsewhere unshare --pid --fork --kill-child --mount-proc
    [ "$(transport)" = attach ]
    works
    [ "$(pool_of coder .misses)" = 0 ]
}

@test "with files that the engine does not see: the attach stream" {
    mkdir -p "$STATE"
    elsewhere unshare --mount sh -c 'mount -t tmpfs tmpfs "$0" && exec "$@"' "$STATE"
    [ "$(transport)" = attach ]
    works
}

@test "transport: socket is not given up for another" {
    WARMPOOL_CONFIG=/dev/null setsid unshare --pid --fork --kill-child --mount-proc "$BUILD/warmpoold" serve --socket "$SOCKET" \
        --set stateDir="$STATE" --set poolSize=1 --set warmupAgentTypes=coder --set transport=socket >>"$DAEMON_LOG" 2>&1 </dev/null 3>&- &
    DAEMON_PID=$!
    eventually 20 api GET /healthz -f -o /dev/null 2>/dev/null
    INSTANCE=$(warmpool status --json | jq -r .instance)
    sleep 3
    [ "$(transport)" = socket ]
    [ "$(pool_of coder .idle)" = 0 ]
}
