# Common to the integration tests: a daemon with its own socket and state directory per file, and the audit that follows each
# test: what carries this instance's label in the engine is exactly what the daemon knows.
#
# A file's setup_file calls `daemon_start [KEY=VALUE ...]`; `teardown_file` calls `daemon_finish`; `teardown` calls `audit`.
# What setup_file learns reaches the tests through exported variables.

ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
BUILD=$(realpath "${BUILD:-$ROOT/build}")
export ROOT BUILD
bats_require_minimum_version 1.5.0

LABEL=io.warmpool.instance

warmpool() {
    "$BUILD/warmpool" --socket "$SOCKET" "$@"
}

# wp_run TYPE ARGS...: `warmpool run`, stdin shut.
wp_run() {
    warmpool run "$@" </dev/null
}

# api METHOD PATH [CURL ARGUMENTS...]
api() {
    local method=$1 path=$2
    shift 2
    curl --silent --show-error --max-time 60 --unix-socket "$SOCKET" -X "$method" "$@" "http://warmpool$path"
}

# post TYPE COMMAND...: the plain form of a task; prints the ExecutionResult.
post() {
    local type=$1
    shift
    jq -cn --arg type "$type" '{agentType: $type, command: $ARGS.positional}' --args -- "$@" |
        api POST /v1/tasks --data-binary @-
}

# eventually SECONDS COMMAND...: true as soon as the command is.
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt "$until" ] || return 1
        sleep 0.05
    done
}

say() {
    echo "# $*" >&3
}

# --- the daemon ---------------------------------------------------------------------------------------------

# The places of a daemon, without starting it.
daemon_place() {
    PLACE=$(mktemp -d "${TMPDIR:-/tmp}/wp-test-XXXXXX")
    SOCKET=$PLACE/api.sock STATE=$PLACE/state DAEMON_LOG=$PLACE/daemon.log
    export PLACE SOCKET STATE DAEMON_LOG
}

# The daemon that is tested; with WEAK the one whose defences WARMPOOL_WEAKEN switches off (src/wire/weaken.h).
daemon_program() {
    if [ -n "${WEAK:-}" ]; then echo "$BUILD/weak/src/daemon/warmpoold"; else echo "$BUILD/warmpoold"; fi
}

# Starts warmpoold at $PLACE with small pools and, if there is one, the file $DAEMON_CONFIG, not waiting for anything.
daemon_launch() {
    local settings=() one
    for one in poolSize=1 "warmupAgentTypes=coder" autoScaling=false maxConcurrentCreates=4 killTimeout=500ms \
        "transport=${TRANSPORT:-auto}" "$@"; do
        settings+=(--set "$one")
    done
    WARMPOOL_CONFIG=${DAEMON_CONFIG:-/dev/null} setsid "$(daemon_program)" serve --socket "$SOCKET" --set stateDir="$STATE" "${settings[@]}" \
        >>"$DAEMON_LOG" 2>&1 </dev/null 3>&- &
    DAEMON_PID=$!
    export DAEMON_PID
}

daemon_is_ready() {
    [ "$(api GET /readyz -o /dev/null -w '%{http_code}' 2>/dev/null)" = 200 ]
}

daemon_start() {
    daemon_place
    daemon_start_here "$@"
}

# At a place that is there already.
daemon_start_here() {
    daemon_launch "$@"
    eventually 60 daemon_is_ready || {
        cat "$DAEMON_LOG" >&2
        return 1
    }
    INSTANCE=$(warmpool status --json | jq -r .instance)
    export INSTANCE
    [ -n "$INSTANCE" ]
}

instance_objects() { # of one instance: "container ID", "network ID", "volume NAME" a line
    docker ps -aq --no-trunc --filter "label=$LABEL=$1" | sed 's/^/container /'
    docker network ls -q --no-trunc --filter "label=$LABEL=$1" | sed 's/^/network /'
    docker volume ls -q --filter "label=$LABEL=$1" | sed 's/^/volume /'
}

nothing_is_left() {
    [ -z "$(instance_objects "$INSTANCE")" ] && [ -z "$(ls -A "$STATE/containers" 2>/dev/null)" ]
}

daemon_is_gone() {
    ! kill -0 "$DAEMON_PID" 2>/dev/null
}

# Takes the daemon down as users do; whatever it leaves is a failure, and is removed so that it harms no other test.
daemon_finish() {
    local failed=0
    [ -n "${PLACE:-}" ] || return 0
    if [ -n "${DAEMON_PID:-}" ] && ! daemon_is_gone; then
        timeout 60 "$BUILD/warmpool" --socket "$SOCKET" down >/dev/null 2>&1 || kill -TERM "$DAEMON_PID"
        eventually 60 daemon_is_gone || {
            echo "the daemon does not end" >&2
            kill -KILL "$DAEMON_PID"
            failed=1
        }
    fi
    if [ -n "${INSTANCE:-}" ] && ! nothing_is_left; then
        echo "left behind by instance $INSTANCE:" >&2
        instance_objects "$INSTANCE" >&2
        ls -A "$STATE/containers" >&2
        failed=1
        remove_objects "$INSTANCE"
    fi
    [ $failed = 0 ] || cat "$DAEMON_LOG" >&2
    rm -rf "$PLACE"
    return $failed
}

remove_objects() {
    instance_objects "$1" | while read -r kind name; do
        case $kind in
        container) docker rm -fv "$name" >/dev/null 2>&1 ;;
        network) docker network rm "$name" >/dev/null 2>&1 ;;
        volume) docker volume rm "$name" >/dev/null 2>&1 ;;
        esac
    done
}

# --- the audit -----------------------------------------------------------------------------------------------

known_containers() {
    api GET /v1/containers | jq -r '.[] | select(.containerId != "") | .containerId' | sort
}

volumes_of() { # of containers
    [ $# = 0 ] || docker inspect --format '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}}{{"\n"}}{{end}}{{end}}' "$@" | sed '/^$/d' | sort
}

# Every labelled container, network, volume and directory belongs to a container that the daemon lists.
audit_holds() {
    local listing containers
    listing=$(api GET /v1/containers) || return 1
    jq -e 'all(.[]; .state == "idle")' >/dev/null <<<"$listing" || return 1
    containers=$(docker ps -aq --no-trunc --filter "label=$LABEL=$INSTANCE" | sort)
    [ "$containers" = "$(jq -r '.[].containerId' <<<"$listing" | sort)" ] || return 1
    # A slot keeps its network for its next container.
    [ -z "$(comm -13 <(api GET /v1/status | jq -r '.networks[]' | sort) \
        <(docker network ls -q --no-trunc --filter "label=$LABEL=$INSTANCE" | sort))" ] || return 1
    # The volumes of /tmp and /workspace are the containers' own: none is without its container.
    # shellcheck disable=SC2086
    [ -z "$(comm -13 <(volumes_of $containers) <(docker volume ls -q --filter "label=$LABEL=$INSTANCE" |
        grep -vx "wp-$INSTANCE-runner" | sort))" ] || return 1
    # Over the attach stream there is nothing of a container on this host; its runner is in the instance's volume.
    [ "$(ls -A "$STATE/containers")" = "$(jq -r '.[].containerName' <<<"$listing" | sort)" ] ||
        { [ "$(api GET /v1/status | jq -r .engine.transport)" = attach ] && [ -z "$(ls -A "$STATE/containers")" ]; }
}

audit() {
    [ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 40 "$DAEMON_LOG" >&2
    eventually 20 audit_holds || {
        echo "the engine's view and the daemon's differ:" >&2
        api GET /v1/containers | jq -r '.[] | [.state, .containerName, .containerId[:12], .networkId[:12]] | @tsv' >&2
        instance_objects "$INSTANCE" >&2
        ls -A "$STATE/containers" >&2
        tail -n 40 "$DAEMON_LOG" >&2
        return 1
    }
}

# --- asking ---------------------------------------------------------------------------------------------------

container_of() { # the id of the container that a task of TYPE runs in now
    wp_run "$1" --json -- true | jq -r .metadata.containerId
}

pool_of() { # pool_of TYPE JQ-FILTER
    api GET "/v1/pools/$1" | jq -r "$2"
}

pool_settles() { # pool_settles TYPE N: exactly N idle containers, nothing else under way
    [ "$(pool_of "$1" '[.idle, .creating + .busy + .resetting + .retiring] | @tsv')" = "$2	0" ]
}

# Processes on this host, in any container of this instance, whose command line has WORD.
processes_with() {
    local pid
    for pid in /proc/[0-9]*; do
        [ -r "$pid/cmdline" ] && tr '\0' ' ' <"$pid/cmdline" 2>/dev/null | grep -qF -- "$1" &&
            [ "$(readlink "$pid/ns/pid")" != "$(readlink /proc/self/ns/pid)" ] && echo "${pid#/proc/}"
    done
    return 0
}

no_process_with() {
    [ -z "$(processes_with "$1")" ]
}

a_process_with() {
    [ -n "$(processes_with "$1")" ]
}
