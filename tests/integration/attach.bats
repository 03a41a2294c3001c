# The attach transport where it is weaker than a socket: streams that are cut, an engine that is away, a daemon that sees
# other processes and files than the engine does. The engine is reached through a proxy whose connections can be cut.
load helper

setup_file() {
    daemon_place
    PROXY=$PLACE/engine.sock
    export PROXY
    proxy_start
    daemon_start_here logLevel=debug transport=attach poolSize=2 "dockerHost=unix://$PROXY"
}
teardown_file() {
    daemon_finish
    proxy_stop
}
teardown() { [ -n "${FINISHED:-}" ] || audit; }

proxy_start() {
    setsid socat "UNIX-LISTEN:$PROXY,fork,backlog=64" UNIX-CONNECT:/var/run/docker.sock >/dev/null 2>&1 </dev/null 3>&- &
    eventually 5 test -S "$PROXY"
}

proxy_stop() {
    proxy_cut
    rm -f "$PROXY"
}

# Ends the listener and every connection at once.
proxy_cut() {
    pkill -KILL -f "^socat UNIX-LISTEN:$PROXY" 2>/dev/null
    return 0
}

cut_and_restart() {
    proxy_cut
    rm -f "$PROXY"
    proxy_start
}

ids() { api GET /v1/containers | jq -r '.[].containerId' | sort; }

all_idle() { [ "$(pool_of coder '[.idle, .unhealthy, .creating] | @tsv')" = "2	0	0" ]; }

@test "output goes on behind a cut stream, from the very byte" {
    "$BUILD/warmpool" --socket "$SOCKET" run coder -- sh -c 'for i in $(seq 60); do seq $i 3000; sleep 0.05; done' </dev/null >"$PLACE/out" &
    local client=$! i
    for i in 1 2 3 4; do
        sleep 0.6
        cut_and_restart
    done
    wait $client
    [ "$(md5sum <"$PLACE/out")" = "$(for i in $(seq 60); do seq "$i" 3000; done | md5sum)" ]
}

@test "a flood of output is cut in the middle of frames, and is right" {
    "$BUILD/warmpool" --socket "$SOCKET" run coder -- sh -c 'seq 12000000' </dev/null | md5sum >"$PLACE/sum" &
    local client=$! i
    for i in 1 2 3; do
        sleep 0.3
        cut_and_restart
    done
    wait $client
    [ "$(cat "$PLACE/sum")" = "$(seq 12000000 | md5sum)" ]
}

@test "stdin goes on behind a cut stream" {
    (for i in $(seq 40); do seq "$i" 20000; sleep 0.05; done) | "$BUILD/warmpool" --socket "$SOCKET" run -i coder -- md5sum >"$PLACE/sum" &
    local client=$! i
    for i in 1 2 3 4; do
        sleep 0.5
        cut_and_restart
    done
    wait $client
    [ "$(cat "$PLACE/sum")" = "$(for i in $(seq 40); do seq "$i" 20000; done | md5sum)" ]
}

@test "a task that ends while the engine is away: its result comes afterwards" {
    "$BUILD/warmpool" --socket "$SOCKET" run --json coder -- sh -c 'sleep 0.5; echo done; exit 9' </dev/null >"$PLACE/result" &
    local client=$!
    sleep 0.3
    proxy_stop
    sleep 1.5
    proxy_start
    wait $client || true
    [ "$(jq -c '[.outcome, .exitCode, .output]' "$PLACE/result")" = '["exited",9,"done\n"]' ]
}

@test "a deadline is kept while the engine is away" {
    "$BUILD/warmpool" --socket "$SOCKET" run --json --timeout 1s coder -- sleep 60 </dev/null >"$PLACE/result" &
    local client=$!
    sleep 0.3
    proxy_stop
    sleep 2.5
    proxy_start
    wait $client || true
    [ "$(jq -r .outcome "$PLACE/result")" = timed_out ]
    [ "$(jq -r '.timings.execMs < 2000' "$PLACE/result")" = true ]
}

@test "streams cut between tasks: the same containers serve on" {
    local before
    eventually 20 all_idle
    before=$(ids)
    cut_and_restart
    eventually 20 all_idle
    [ "$(ids)" = "$before" ]
    [ "$(wp_run coder -- echo still)" = still ]
    eventually 10 all_idle
    [ "$(ids)" = "$before" ]
}

@test "a task that was lost on its way to a container in use is sent again" {
    local lease client i
    lease=$(warmpool lease coder)
    warmpool exec "$lease" -- sh -c 'echo first >kept' </dev/null
    for i in 1 2 3; do
        pkill -STOP -f "^socat UNIX-LISTEN:$PROXY"
        "$BUILD/warmpool" --socket "$SOCKET" exec "$lease" -- cat kept </dev/null >"$PLACE/out" 3>&- &
        client=$!
        sleep 0.3
        cut_and_restart
        wait $client
        [ "$(cat "$PLACE/out")" = first ]
    done
    warmpool release "$lease"
}

@test "a runner that hangs behind a cut stream is replaced" {
    local pid before
    eventually 20 all_idle
    before=$(ids)
    pid=$(api GET /v1/containers | jq '.[0].pid')
    kill -STOP "$pid"
    cut_and_restart
    eventually 30 test ! -e "/proc/$pid"
    eventually 30 all_idle
    [ "$(ids)" != "$before" ]
}

@test "a reset that was cut is asked for again" {
    local i
    for i in $(seq 10); do
        wp_run coder -- sh -c 'touch /tmp/left'
        cut_and_restart
        [ "$(wp_run coder -- ls -A /tmp)" = "" ]
    done
}

@test "cancelled while the stream is away" {
    "$BUILD/warmpool" --socket "$SOCKET" run --id away coder -- sleep 300 </dev/null >/dev/null 2>&1 &
    local client=$!
    sleep 0.3
    proxy_stop
    api DELETE /v1/tasks/away >/dev/null
    sleep 0.3
    proxy_start
    status=0
    wait $client || status=$?
    [ "$status" = 130 ]
}

@test "a container whose output nobody takes can be removed" {
    "$BUILD/warmpool" --socket "$SOCKET" run coder -- sh -c 'cat /dev/zero' </dev/null | sleep 2 &
    sleep 0.5
    local id
    id=$(api GET /v1/containers | jq -r '.[] | select(.isInUse) | .containerId')
    [ -n "$id" ]
    run -0 timeout 20 docker rm -fv "$id"
    wait
    eventually 20 all_idle
}

@test "no token and no daemon's file is seen by a task" {
    run -1 wp_run coder -- sh -c 'env | grep -i token'
    run ! wp_run coder -- sh -c 'cat /proc/1/environ'
    run ! wp_run coder -- sh -c 'ls /proc/1/fd/'
    run ! wp_run coder -- sh -c 'echo x >/.warmpool/runner'
    [ "$(wp_run coder -- ls -A /.warmpool)" = $'runner\nrunner-readable' ]
}

@test "the runner's volume that somebody emptied is filled again" {
    docker run --rm --label io.warmpool.test=attach --network none -v "wp-$INSTANCE-runner:/v" warmpool-agent:latest rm -f /v/runner
    warmpool scale coder 3
    eventually 30 pool_settles coder 3
    warmpool scale coder auto
}

@test "containers end by themselves when their daemon was killed" {
    daemon_finish
    daemon_place
    PROXY=$PLACE/engine.sock
    proxy_start
    daemon_start_here transport=attach orphanTimeout=2s "dockerHost=unix://$PROXY"
    sleep 3 # the daemon lives: so do they
    [ "$(docker ps -q --filter "label=$LABEL=$INSTANCE" | wc -l)" = 1 ]
    kill -KILL "$DAEMON_PID"
    eventually 10 nothing_runs
    daemon_launch transport=attach "dockerHost=unix://$PROXY" # clears up what the other left
    eventually 30 daemon_is_ready
    audit
    daemon_finish # this one is not known to teardown_file
    proxy_stop
    FINISHED=1
}

nothing_runs() { [ -z "$(docker ps -q --filter "label=$LABEL=$INSTANCE")" ]; }
