# gVisor: tasks see its kernel, not the host's; everything else is as with any other runtime. A second dockerd has it as its
# runtime, so that nothing of this host's engine is changed.
load helper
load second_dockerd

setup_file() {
    SECOND=$(mktemp -d /tmp/wp-gvisor-XXXXXX)
    export SECOND
    cat >"$SECOND/daemon.json" <<EOF
{"runtimes": {"runsc": {"path": "$(command -v runsc)",
    "runtimeArgs": ["--platform=ptrace", "--ignore-cgroups", "--network=none"]}}}
EOF
    SECOND_ARGUMENTS="--config-file $SECOND/daemon.json" second_dockerd_start "$SECOND"
    export DOCKER_HOST=unix://$SECOND/docker.sock
    daemon_start poolSize=2 networkMode=none resetTimeout=20s agentConfigs.coder.runtime=runsc agentConfigs.plain.memory=128m
}
teardown_file() {
    daemon_finish
    second_dockerd_stop "$SECOND"
}
teardown() { audit_here; }

# Pools of both transports: only what both have is compared.
audit_here() { eventually 20 settled; }
settled() { api GET /v1/containers | jq -e 'all(.[]; .state == "idle")' >/dev/null; }

@test "a task sees gVisor's kernel, its neighbour of another type the host's" {
    # The kernel that gVisor's sentry says it is; its log, which names it, is closed to tasks.
    [[ "$(wp_run coder -- cat /proc/version)" == "Linux version 4.4.0 "*2016 ]]
    [ "$(wp_run coder -- uname -r)" != "$(uname -r)" ]
    [ "$(wp_run plain -- uname -r)" = "$(uname -r)" ]
    docker inspect --format '{{.HostConfig.Runtime}}' $(docker ps -q --filter "label=io.warmpool.type=coder") | sort -u | grep -x runsc
}

@test "exit codes, output, stdin, signals and deadlines" {
    run -42 wp_run coder -- sh -c 'echo out; echo err >&2; exit 42'
    run -143 wp_run coder -- sh -c 'kill -TERM $$'
    run -124 wp_run --timeout 1s coder -- sleep 60
    run -127 wp_run coder -- no-such-program
    [ "$(head -c 3000000 /dev/zero | warmpool run -i coder -- wc -c)" = 3000000 ]
    [ "$(wp_run coder -- sh -c 'seq 200000' | md5sum)" = "$(seq 200000 | md5sum)" ]
}

@test "the same containers serve again, and nothing of a task is left" {
    local before i
    before=$(api GET /v1/containers | jq -r '.[] | select(.agentType == "coder") | .containerId' | sort)
    for i in 1 2 3 4 5 6; do
        [ "$(wp_run coder -- sh -c 'ls -A /tmp /workspace /dev/shm | grep -c left; touch /tmp/left /workspace/left /dev/shm/left; sleep 1000 &')" = 0 ]
    done
    eventually 20 settled
    [ "$(api GET /v1/containers | jq -r '.[] | select(.agentType == "coder") | .containerId' | sort)" = "$before" ]
    [ "$(wp_run coder -- ps | grep -c 'sleep 1000')" = 0 ]
}

@test "PID 1 cannot be read or traced by a task of the same uid" {
    run ! wp_run coder -- sh -c 'cat /proc/1/environ | grep WARMPOOL'
    run ! wp_run coder -- sh -c 'cat /proc/1/mem >/dev/null'
    run ! wp_run coder -- sh -c 'echo x >/.warmpool/runner-readable'
    wp_run coder -- true
}

@test "files and a terminal" {
    echo content >"$PLACE/file"
    [ "$(wp_run --copy-in "$PLACE/file:/workspace/" --copy-out "/workspace/back:$PLACE/back" coder -- sh -c 'cp file back; cat back')" = content ]
    [ "$(cat "$PLACE/back")" = content ]
    [[ "$(wp_run -t coder -- sh -c 'test -t 0 && stty size')" == "24 80"* ]]
}
