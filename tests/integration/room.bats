# Who gives way when the caps that all types share are used up by idle containers.
load helper

teardown() {
    audit
    daemon_finish
}

ends_well() { # TYPE HIT: its task runs in time, in a container that was there (true) or not
    result=$(wp_run "$1" --queue-timeout 30s --json -- true) && [ "$(jq -r .hit <<<"$result")" = "$2" ] ||
        { echo "$result"; return 1; }
}

@test "maxTotalContainers: the longest idle container of another type makes room" {
    daemon_start maxTotalContainers=2 poolSize=2 minPoolSize=1 maxPoolSize=2
    eventually 15 pool_settles coder 2
    ends_well tester false
    eventually 15 pool_settles tester 1
    [ "$(pool_of coder .idle)" = 1 ]
    grep -q "it made room for tester" "$DAEMON_LOG"
    ends_well coder true
    # Not even the minimum stands against a task that would wait for ever.
    ends_well reviewer false
    eventually 15 pool_settles reviewer 1
    ends_well coder true
    warmpool events --no-follow --json >"$PLACE/events"
    jq -se 'any(.[]; .type == "poolScaled" and .agentType == "coder" and (.why | contains("tasks of tester wait")))' "$PLACE/events"
}

@test "memoryBudget: containers go until there is room for a larger one" {
    daemon_start memoryBudget=1g poolSize=3 minPoolSize=0 maxPoolSize=3 agentConfigs.coder.memory=256m agentConfigs.tester.memory=768m
    eventually 15 pool_settles coder 3
    ends_well tester false
    [ "$(pool_of coder .idle)" = 1 ]
}

@test "a pinned pool gives nothing; who waits is told so at the deadline" {
    daemon_start maxTotalContainers=1 poolSize=1
    eventually 15 pool_settles coder 1
    warmpool scale coder 1
    run -125 wp_run tester --queue-timeout 2s -- true
    [ "$(pool_of coder .idle)" = 1 ]
    warmpool scale coder auto
    ends_well tester false
}
