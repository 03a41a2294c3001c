# Leak canaries: a hostile task of warmpool's own, and the look after it. With a defence off they have to meet what was left.
load ../integration/helper

teardown() {
    audit
    daemon_finish
}

canaries_of() { pool_of "$1" .canaries; }
have_looked() { [ "$(canaries_of "$1")" -ge "$2" ]; }

@test "canaries look, meet nothing, and nobody notices: same containers, no task counted, no event" {
    daemon_start poolSize=2 canaryInterval=1s
    before=$(known_containers)
    eventually 20 have_looked coder 3
    [ "$(pool_of coder '[.contaminations, .resetsFailed, .tasks, .reuseStopped] | @tsv')" = "0	0	0	false" ]
    [ "$(known_containers)" = "$before" ]
    run ! grep -E "canary|retired" "$DAEMON_LOG"
    warmpool events --no-follow --json | jq -se 'all(.[]; .type != "taskStarted" and .type != "taskEnded" and .type != "contamination")'
    [ "$(wp_run coder --json -- true | jq .metadata.execCount)" = 1 ]
}

@test "one spare container is left alone while it is in use; alone and idle for long it is looked at" {
    daemon_start poolSize=1 maxPoolSize=1 canaryInterval=1s
    for _ in $(seq 30); do wp_run coder -- sleep 0.1; done
    [ "$(canaries_of coder)" = 0 ]
    eventually 30 have_looked coder 1
}

@test "idle time goes on through canaries: containerIdleTimeout is met" {
    daemon_start poolSize=2 minPoolSize=0 canaryInterval=1s containerIdleTimeout=4s
    eventually 15 have_looked coder 1
    eventually 15 pool_settles coder 0
}

@test "canaryInterval: 0 is never" {
    daemon_start poolSize=2 canaryInterval=0
    sleep 3
    [ "$(canaries_of coder)" = 0 ]
}

# fouled_without DEFENCE WORDS: with it off (and the receipt's comparison, which would have destroyed the container) the canary meets it.
fouled_without() {
    jq -se --arg type "$1" --arg words "$2" 'any(.[]; .type == "contamination" and .agentType == $type and (.reason | contains($words)))' <<<"$events" >/dev/null ||
        { echo "$1: nothing was met, or not that:"; grep -i "residue\|canary" "$DAEMON_LOG"; return 1; }
    [ "$(pool_of "$1" '[.contaminations > 0, .reuseStopped] | @tsv')" = "true	true" ]
}

@test "control: with wiping, System V removal or killing off the canary meets what was left; reuse ends until resume" {
    export WARMPOOL_WEAKEN="wipe=wipe,receipt;sysv=sysv,receipt;kill=kill,receipt"
    WEAK=1 daemon_start poolSize=2 warmupAgentTypes=wipe,sysv,kill canaryInterval=1s
    have_told() {
        events=$(warmpool events --no-follow --json --type contamination)
        [ "$(jq -r .agentType <<<"$events" | sort -u | wc -l)" = 3 ]
    }
    eventually 30 have_told
    fouled_without wipe /tmp
    fouled_without sysv ipc
    fouled_without kill /proc
    # No container serves twice now.
    first=$(container_of sysv)
    eventually 15 pool_settles sysv 2
    [ "$(container_of sysv)" != "$first" ]
    grep -q "survived the reset" "$DAEMON_LOG"
    warmpool resume sysv
    [ "$(pool_of sysv .reuseStopped)" = false ]
}
