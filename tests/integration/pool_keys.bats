# Keys of pools, each at two values (keys.bats has those of containers and tasks, daemon_keys.bats those of the daemon): what is
# observed is what the pool does. One daemon, an agent type for each value.
load helper

setup_file() {
    daemon_place
    export DAEMON_CONFIG=$PLACE/warmpool.yaml
    cat >"$DAEMON_CONFIG" <<'YAML'
networkMode: none
maxTotalContainers: 100
memory: 32m
agentConfigs:
  size-a: {poolSize: 1}
  size-b: {poolSize: 3}
  max-a: {maxPoolSize: 1}
  max-b: {maxPoolSize: 2}
  idle-a: {poolSize: 3, minPoolSize: 1, containerIdleTimeout: 1s}
  idle-b: {poolSize: 3, minPoolSize: 2, containerIdleTimeout: 1s}
  idle-c: {poolSize: 3, minPoolSize: 1, containerIdleTimeout: 0}
  age-a: {maxContainerAge: 1s}
  age-b: {maxContainerAge: 0}
  check-a: {healthCheckInterval: 500ms}
  check-b: {healthCheckInterval: 0}
  auto-a: {poolSize: 2, minPoolSize: 1, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleCooldown: 0}
  auto-b: {poolSize: 2, minPoolSize: 1, autoScaling: false, scalingPolicy: threshold, scalingInterval: 500ms, scaleCooldown: 0}
  auto-c: {poolSize: 2, minPoolSize: 1, autoScaling: true, scalingPolicy: threshold, scalingInterval: 1h, scaleCooldown: 0}
  cool-a: {poolSize: 4, minPoolSize: 1, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleCooldown: 0}
  cool-b: {poolSize: 4, minPoolSize: 1, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleCooldown: 1h}
  up-a: {scaleCooldown: 0, poolSize: 2, minPoolSize: 2, maxPoolSize: 3, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleUpThreshold: 30, scaleDownThreshold: 0}
  up-b: {scaleCooldown: 0, poolSize: 2, minPoolSize: 2, maxPoolSize: 3, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleUpThreshold: 70, scaleDownThreshold: 0}
  down-a: {scaleCooldown: 0, poolSize: 2, minPoolSize: 1, maxPoolSize: 2, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleUpThreshold: 90, scaleDownThreshold: 70}
  down-b: {scaleCooldown: 0, poolSize: 2, minPoolSize: 1, maxPoolSize: 2, autoScaling: true, scalingPolicy: threshold, scalingInterval: 500ms, scaleUpThreshold: 90, scaleDownThreshold: 30}
  rate-a: {poolSize: 1, maxPoolSize: 3, autoScaling: true, targetHitRate: 50, scaleCooldown: 0}
  rate-b: {poolSize: 1, maxPoolSize: 3, autoScaling: true, targetHitRate: 99, scaleCooldown: 0}
  wait-a: {maxPoolSize: 1, queueTimeoutMs: 300ms}
  wait-b: {maxPoolSize: 1, queueTimeoutMs: 10s}
  queue-a: {maxPoolSize: 1, maxQueue: 1}
  queue-b: {maxPoolSize: 1, maxQueue: 2}
  retry-a: {retryAttempts: 0}
  retry-b: {retryAttempts: 2}
  lease-a: {leaseTtl: 1s, leaseWarnAfter: 500ms}
  lease-b: {leaseTtl: 5m, leaseWarnAfter: 0}
  kill-a: {timeoutMs: 200ms, killTimeout: 100ms}
  kill-b: {timeoutMs: 200ms, killTimeout: 1500ms}
YAML
    daemon_start_here
}
teardown_file() { daemon_finish; }
teardown() { audit; }

# warm TYPE: the pool is made, with the size that its profile says.
warm() {
    wp_run "$1" -- true
    eventually 20 pool_has "$1" "$(pool_of "$1" .target)"
}
pool_has() { [ "$(pool_of "$1" .idle)" = "$2" ]; }
target_is() { [ "$(pool_of "$1" .target)" = "$2" ]; }
containers_of() { api GET /v1/containers | jq -r --arg type "$1" '[.[] | select(.agentType == $type) | .containerName] | sort | join(" ")'; }

# busy TYPE SECONDS: one task, in the background; TASK is its process.
busy() {
    wp_run "$1" -- sleep "$2" >/dev/null 2>&1 3>&- &
    TASK=$!
    eventually 5 is_busy "$1"
}
is_busy() { [ "$(pool_of "$1" .busy)" -ge 1 ]; }

@test "poolSize: how many are warm" {
    warmpool warm size-a 1
    warmpool warm size-b 1
    eventually 20 pool_has size-a 1
    eventually 20 pool_has size-b 3
}

@test "maxPoolSize: what a burst may make" {
    local tasks=() type
    for type in max-a max-b; do
        for _ in 1 2 3; do
            wp_run "$type" -- sleep 1 3>&- &
            tasks+=($!)
        done
    done
    sleep 0.8
    [ "$(pool_of max-a .total)" = 1 ]
    eventually 5 test "$(pool_of max-b .total)" = 2
    wait "${tasks[@]}"
    [ "$(pool_of max-a .total) $(pool_of max-b .total)" = "1 2" ]
}

@test "containerIdleTimeout, minPoolSize: what is not used goes, down to the minimum" {
    for type in idle-a idle-b idle-c; do warm $type; done
    eventually 15 pool_has idle-a 1
    eventually 15 pool_has idle-b 2
    sleep 1.5
    [ "$(pool_of idle-a .idle) $(pool_of idle-b .idle) $(pool_of idle-c .idle)" = "1 2 3" ]
}

@test "maxContainerAge: a container is replaced, or never" {
    warm age-a
    warm age-b
    old=$(containers_of age-a) stays=$(containers_of age-b)
    replaced() { [ -n "$(containers_of age-a)" ] && [[ " $(containers_of age-a) " != *" $old "* ]]; }
    eventually 10 replaced
    [ "$(containers_of age-b)" = "$stays" ]
}

@test "healthCheckInterval: a container that hangs is found, or is not looked for" {
    warm check-a
    warm check-b
    a=$(containers_of check-a) b=$(containers_of check-b)
    docker pause "$a" "$b" >/dev/null
    found() { [[ " $(containers_of check-a) " != *" $a "* ]] || [ "$(pool_of check-a .unhealthy)" = 1 ]; }
    eventually 15 found
    state=$(pool_of check-b '[.idle, .unhealthy] | @tsv')
    docker unpause "$b" >/dev/null
    docker unpause "$a" >/dev/null 2>&1 || true
    [ "$state" = $'1\t0' ]
    [ "$(containers_of check-b)" = "$b" ]
}

@test "autoScaling, scalingInterval: an idle pool is made smaller; not at all; not yet" {
    for type in auto-a auto-b auto-c; do warm $type; done
    eventually 10 target_is auto-a 1
    sleep 1
    [ "$(pool_of auto-b .target) $(pool_of auto-c .target)" = "2 2" ]
}

@test "scaleCooldown: one step after the other, or one in an hour" {
    warm cool-a
    warm cool-b
    eventually 15 target_is cool-a 1
    [ "$(pool_of cool-b .target)" -ge 3 ]
}

@test "scaleUpThreshold: one of two busy is enough, or is not" {
    local tasks=() type
    for type in up-a up-b; do
        warm $type
        busy $type 4
        tasks+=($TASK)
    done
    eventually 4 target_is up-a 3
    [ "$(pool_of up-b .target)" = 2 ]
    wait "${tasks[@]}"
}

@test "scaleDownThreshold: one of two busy is too little, or is not" {
    local tasks=() type
    for type in down-a down-b; do
        wp_run $type -- true
        busy $type 4
        tasks+=($TASK)
    done
    shrunk() { grep -q "down-a: scaled from 2 to 1 containers: utilisation was [3-6][0-9] %" "$DAEMON_LOG"; }
    eventually 4 shrunk
    ! grep "down-b: scaled from 2 to 1 containers: utilisation was [4-6][0-9] %" "$DAEMON_LOG"
    wait "${tasks[@]}"
}

@test "targetHitRate: one burst among many tasks is worth containers, or is not" {
    local type tasks=()
    for type in rate-a rate-b; do
        warm $type
        for _ in 1 2 3; do
            wp_run $type -- sleep 0.5 3>&- &
            tasks+=($!)
        done
        wait "${tasks[@]}"
        for _ in $(seq 30); do wp_run $type -- true; done
    done
    eventually 5 target_is rate-a 1
    sleep 1
    [ "$(pool_of rate-b .target)" -ge 2 ]
    [ "$(pool_of rate-a .target)" = 1 ]
}

@test "queueTimeoutMs: a task gives up waiting, or not" {
    warmpool warm wait-a 1
    warmpool warm wait-b 1
    local tasks=()
    busy wait-a 1.5 && tasks+=($TASK)
    busy wait-b 1.5 && tasks+=($TASK)
    run -125 wp_run wait-a -- true
    wp_run wait-b -- true
    wait "${tasks[@]}"
}

@test "maxQueue: one may wait, or two" {
    local type tasks
    for type in queue-a queue-b; do
        warm $type
        tasks=()
        busy $type 2
        tasks+=($TASK)
        wp_run $type -- true 3>&- &
        tasks+=($!)
        waits() { [ "$(pool_of $type .waiting)" = "$1" ]; }
        eventually 5 waits 1
        code=$(api POST /v1/tasks --data "{\"agentType\":\"$type\",\"command\":[\"true\"]}" -o /dev/null -w '%{http_code}')
        [ "$code" = "$([ $type = queue-a ] && echo 429 || echo 200)" ]
        wait "${tasks[@]}"
    done
}

# outcome_of TYPE: of an idempotent task whose container is killed once.
outcome_of() {
    warm "$1"
    wp_run "$1" --json --idempotent -- sleep 1 >"$BATS_TEST_TMPDIR/$1" 3>&- &
    local task=$!
    eventually 5 is_busy "$1"
    docker kill "$(api GET /v1/containers | jq -r --arg type "$1" '.[] | select(.agentType == $type and .isInUse) | .containerId')" >/dev/null
    wait $task || true
    jq -r .outcome "$BATS_TEST_TMPDIR/$1"
}

@test "retryAttempts: a task is tried again, or not" {
    [ "$(outcome_of retry-a)" = lost ]
    [ "$(outcome_of retry-b)" = exited ]
}

@test "leaseTtl, leaseWarnAfter: a lease ends by itself, or is there; is said to be forgotten, or not" {
    a=$(warmpool lease lease-a)
    b=$(warmpool lease lease-b)
    forgotten() { grep -q "lease $a of lease-a is held for" "$DAEMON_LOG"; }
    ended() { [[ "$(warmpool leases --json)" != *"$a"* ]]; }
    eventually 5 forgotten
    eventually 10 ended
    [[ "$(warmpool leases --json)" == *"$b"* ]]
    ! grep -q "lease $b of lease-b is held for" "$DAEMON_LOG"
    warmpool release "$b"
}

@test "killTimeout: how long SIGTERM may be ignored" {
    local type ms
    for type in kill-a kill-b; do
        warmpool warm $type 1
        ms=$(post $type sh -c 'trap "" TERM; sleep 20 & wait; wait; sleep 20' | jq '.duration | floor')
        echo "$type: $ms ms"
        if [ $type = kill-a ]; then [ "$ms" -lt 1200 ]; else [ "$ms" -ge 1500 ]; fi
    done
}
