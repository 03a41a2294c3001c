# examples/config: each file is correct, means what it says, and a daemon that is started with it runs a task of each type.
load helper

setup() {
    CONFIGS=$ROOT/examples/config
    [ -e "$BUILD/warmpoold" ] || ln -s src/daemon/warmpoold "$BUILD/warmpoold"
}
teardown() { daemon_finish; }

# starts FILE: a daemon with nothing but that file, in a place where it can be another one later.
starts() {
    daemon_place
    cp "$CONFIGS/$1" "$PLACE/warmpool.yaml"
    setsid "$BUILD/warmpoold" serve --config "$PLACE/warmpool.yaml" --socket "$SOCKET" --set stateDir="$STATE" >>"$DAEMON_LOG" 2>&1 </dev/null 3>&- &
    DAEMON_PID=$!
    eventually 120 daemon_is_ready || {
        cat "$DAEMON_LOG" >&2
        return 1
    }
    INSTANCE=$(warmpool status --json | jq -r .instance)
}

# says FILE TEXT...: what is in force has these lines.
says() {
    local file=$1 shown line
    shift
    shown=$("$BUILD/warmpoold" config show --config "$CONFIGS/$file" | sed 's/ *#.*//')
    for line in "$@"; do
        grep -qxF -- "$line" <<<"$shown" || {
            echo "$file: not in force: $line"
            return 1
        }
    done
}

# serves FILE N TYPES...: N containers of each type are there, and each runs a task.
serves() {
    local file=$1 size=$2 type
    shift 2
    starts "$file"
    [ "$(api GET /v1/containers | jq -r '[.[].agentType] | unique | join(" ")')" = "$(printf '%s\n' "$@" | sort | xargs)" ]
    for type in "$@"; do
        [ "$(pool_of "$type" .idle)" = "$size" ]
        result=$(wp_run "$type" --json -- sh -c 'echo "$AGENT_TYPE"')
        [ "$(jq -c '[.output, .hit]' <<<"$result")" = "[\"$type\\n\",true]" ]
    done
}

@test "every file is correct, without a warning, and has its test here" {
    for file in "$CONFIGS"/*.yaml; do
        run --separate-stderr "$BUILD/warmpoold" config check "$file"
        [ "$status" = 0 ] || { echo "$output$stderr"; return 1; }
        [ -z "$stderr" ] || { echo "$stderr"; return 1; }
        grep -q "serves ${file##*/}" "$BATS_TEST_FILENAME" || { echo "${file##*/} is not started here"; return 1; }
    done
}

@test "basic" {
    says basic.yaml 'poolSize: 2' 'minPoolSize: 1' 'maxPoolSize: 10' 'autoScaling: true' 'scaleUpThreshold: 80' 'scaleDownThreshold: 20' \
        'maxContainerAge: 3600000ms' 'containerIdleTimeout: 1800000ms' 'healthCheckInterval: 30000ms' 'readOnlyRootFs: true' \
        'noNewPrivileges: true' 'user: "swarm:swarm"'
    serves basic.yaml 2 coder tester reviewer researcher planner
}

@test "agent-specific: memory, cores and variables of each type" {
    serves agent-specific.yaml 2 coder tester reviewer
    local type memory cores variables
    while read -r type memory cores variables; do
        id=$(container_of "$type")
        [ "$(docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}' "$id")" = "$((memory << 20)) $((cores * 10000000))" ]
        for variable in $variables; do
            wp_run "$type" -- env | grep -qxF "$variable" || { echo "$type lacks $variable"; return 1; }
        done
    done <<'END'
coder 512 100 CODER_MODE=true ALLOW_CODE_EXECUTION=true
tester 256 50 TESTER_MODE=true TEST_FRAMEWORKS=jest,mocha,cypress
reviewer 128 25 REVIEWER_MODE=true ANALYSIS_TOOLS=eslint,prettier,sonar
END
}

@test "production" {
    says production.yaml 'poolSize: 3' 'minPoolSize: 1' 'maxPoolSize: 8' 'autoScaling: true' 'scaleUpThreshold: 75' 'scaleDownThreshold: 25' \
        'maxContainerAge: 7200000ms' 'healthCheckInterval: 60000ms' 'containerIdleTimeout: 3600000ms' 'readOnlyRootFs: true' \
        'noNewPrivileges: true' 'user: "swarm:swarm"' 'enableContainerReuse: true' 'preloadCommonImages: true' 'optimizeNetworking: true' \
        'timeoutMs: 300000ms'
    serves production.yaml 3 coder tester reviewer researcher planner
}

@test "memory-saving" {
    says memory-saving.yaml 'poolSize: 1' 'maxPoolSize: 3' 'autoScaling: false' 'containerIdleTimeout: 300000ms'
    serves memory-saving.yaml 1 coder tester reviewer researcher planner
}

@test "migration, one type: others are refused" {
    says migration-1-one-type.yaml 'poolSize: 1' 'autoScaling: false'
    serves migration-1-one-type.yaml 1 coder
    run -125 wp_run stranger -- true
    [[ "$output" == *strictAgentTypes* ]]
}

@test "migration, common types" {
    says migration-2-common-types.yaml 'poolSize: 2' 'autoScaling: true'
    serves migration-2-common-types.yaml 2 coder tester
}

@test "migration, all types" {
    says migration-3-all-types.yaml 'poolSize: 2' 'autoScaling: true' 'maxPoolSize: 10'
    serves migration-3-all-types.yaml 2 coder tester reviewer researcher planner
}

is_warm() { # N TYPES...
    local size=$1 type
    shift
    for type in "$@"; do [ "$(pool_of "$type" .idle)" -ge "$size" ] || return 1; done
}

@test "migration: one file after the other, the daemon goes on" {
    starts migration-1-one-type.yaml
    first=$(container_of coder)
    cp "$CONFIGS/migration-2-common-types.yaml" "$PLACE/warmpool.yaml"
    warmpool reload
    eventually 30 is_warm 2 coder tester
    cp "$CONFIGS/migration-3-all-types.yaml" "$PLACE/warmpool.yaml"
    warmpool reload
    eventually 60 is_warm 2 coder tester reviewer researcher planner
    # Sizes changed, containers did not have to.
    known_containers | grep -qx "$first"
}
