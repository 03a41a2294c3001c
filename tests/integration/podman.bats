#!/usr/bin/env bats
# Podman's Docker-compatible service, started for this file alone: in a network namespace and with directories of its own.

load helper

setup_file() {
    PODMAN=$(mktemp -d /var/tmp/wp-podman-XXXXXX)
    NETNS=wp-podman-$$
    export PODMAN NETNS
    # What runs as root without CAP_SYS_RESOURCE cannot raise limits as far as Podman's defaults go.
    cat >"$PODMAN/containers.conf" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
events_logger = "file"
END
    printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' >"$PODMAN/registries.conf"
    ip netns add "$NETNS"
    ip -n "$NETNS" link set lo up
    # runc: crun 1.8 refuses a cgroup mount like that of a container on cgroup v1.
    TMPDIR=$PODMAN CONTAINERS_CONF=$PODMAN/containers.conf \
        CONTAINERS_REGISTRIES_CONF=$PODMAN/registries.conf setsid nsenter --net="/run/netns/$NETNS" podman --root "$PODMAN/root" \
        --runroot "$PODMAN/runroot" --tmpdir "$PODMAN/tmp" --network-config-dir "$PODMAN/networks" --runtime runc \
        --cgroup-manager cgroupfs system service --time=0 "unix://$PODMAN/podman.sock" >"$PODMAN/log" 2>&1 </dev/null 3>&- &
    PODMAN_PID=$!
    export PODMAN_PID
    eventually 30 podman_answers || {
        cat "$PODMAN/log" >&2
        return 1
    }
}

podman_api() { # METHOD PATH
    curl --silent --max-time 60 --unix-socket "$PODMAN/podman.sock" -X "$1" "http://podman$2"
}

podman_answers() {
    [ "$(podman_api GET /version | jq -r '.Components[0].Name')" = "Podman Engine" ]
}

podman_is_gone() {
    ! kill -0 "$PODMAN_PID" 2>/dev/null
}

podman_holds() { # nothing but what it had at the beginning
    [ "$(podman_api GET '/v1.41/containers/json?all=1' | jq length)" = 0 ] &&
        [ "$(podman_api GET /v1.41/networks | jq -c '[.[].Name | select(. != "podman" and . != "bridge")]')" = "[]" ] &&
        [ "$(podman_api GET /v1.41/volumes | jq -c .Volumes)" = "[]" ]
}

teardown_file() {
    local left=0 id mount
    [ -n "${PODMAN_PID:-}" ] || return 0
    podman_holds || {
        echo "left behind in podman:" >&2
        podman_api GET '/v1.41/containers/json?all=1' | jq -c '.[] | [.Names, .State]' >&2
        podman_api GET /v1.41/networks | jq -c '.[].Name' >&2
        podman_api GET /v1.41/volumes | jq -c '.Volumes[].Name' >&2
        left=1
    }
    for id in $(podman_api GET '/v1.41/containers/json?all=1' | jq -r '.[].Id'); do
        podman_api DELETE "/v1.41/containers/$id?force=1&v=1" >/dev/null
    done
    kill -TERM "$PODMAN_PID"
    eventually 20 podman_is_gone || kill -KILL "$PODMAN_PID"
    ip netns delete "$NETNS"
    for mount in $(cut -d' ' -f2 /proc/self/mounts | grep -F "$PODMAN/" | sort -r); do umount -l "$mount"; done
    rm -rf "$PODMAN"
    # What CNI remembers of networks that are gone: that they have no address in use.
    for mount in /var/lib/cni/networks/wp-*; do
        [ -z "$(find "$mount" -type f ! -name 'last_reserved_ip*' ! -name lock 2>/dev/null)" ] && rm -rf "$mount"
    done
    return $left
}

@test "the conformance suite passes on Podman" {
    run env -u DOCKER_CERT_PATH DOCKER_HOST="unix://$PODMAN/podman.sock" WARMPOOL_TEST_ENGINE=podman \
        WARMPOOL_TEST_ENGINE_PID="$PODMAN_PID" "$BUILD/tests/engine/engine-conformance"
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"OK ] test_isolation"* && $output == *"OK ] test_echo"* ]]
    [[ $output != *SKIPPED* ]]
    podman_holds
}

@test "tasks run in containers of Podman's, which are reset, and nothing is left" {
    daemon_place
    daemon_launch engine=podman dockerHost="unix://$PODMAN/podman.sock" ulimits="nofile=1024,nproc=1024" networkMode=internal
    eventually 90 daemon_is_ready || { cat "$DAEMON_LOG"; return 1; }
    [ "$(warmpool run coder -- sh -c 'echo residue >/workspace/x; cat /workspace/x')" = residue ]
    [ "$(warmpool run coder -- sh -c 'ls /workspace; id -u | grep -q "^20000" && echo own uid')" = "own uid" ]
    [ "$(warmpool status --json | jq -r .engine.name)" = podman ]
    timeout 60 "$BUILD/warmpool" --socket "$SOCKET" down
    eventually 30 daemon_is_gone
    podman_holds || { cat "$DAEMON_LOG"; return 1; }
    rm -rf "$PLACE"
}

# In Podman's network namespace, where its loopback is.
registry_inside() {
    mkdir -p "$PODMAN/registry"
    printf 'version: 0.1\nlog: {level: error}\nhttp: {addr: "127.0.0.1:5000"}\nstorage: {filesystem: {rootdirectory: "%s/data"}}\n' \
        "$PODMAN/registry" >"$PODMAN/registry/config.yml"
    setsid nsenter --net="/run/netns/$NETNS" docker-registry serve "$PODMAN/registry/config.yml" \
        >"$PODMAN/registry/log" 2>&1 </dev/null 3>&- &
    REGISTRY_PID=$!
    disown
    eventually 20 nsenter --net="/run/netns/$NETNS" curl -s -o /dev/null http://127.0.0.1:5000/v2/
}

podman_pulls() { # REFERENCE
    WARMPOOL_CONFIG=/dev/null "$BUILD/warmpool" image pull "$1" --set dockerHost="unix://$PODMAN/podman.sock"
}

@test "images are pulled by Podman; a registry that has none, or is not there, is told apart" {
    local image=127.0.0.1:5000/team/agent:1
    registry_inside
    WARMPOOL_CONFIG=/dev/null "$BUILD/warmpool" image build --tag $image --set dockerHost="unix://$PODMAN/podman.sock"
    podman_api POST "/v1.41/images/$image/push?tlsVerify=false" | tail -n 1
    podman_api DELETE "/v1.41/images/$image?force=1" >/dev/null
    run podman_pulls $image
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"$image sha256:"* ]]
    run podman_pulls 127.0.0.1:5000/team/agent:none
    echo "$output"
    [ "$status" = 1 ]
    [[ $output == *"manifest unknown"* ]]
    kill -KILL "$REGISTRY_PID"
    podman_api DELETE "/v1.41/images/$image?force=1" >/dev/null
    run podman_pulls $image
    echo "$output"
    [ "$status" = 1 ]
    [[ $output == *"connection refused (the registry cannot be reached: is it running?)"* ]]
}

teardown() {
    [ -z "${REGISTRY_PID:-}" ] || kill -KILL "$REGISTRY_PID" 2>/dev/null || true

    [ -n "${BATS_TEST_COMPLETED:-}" ] || [ -z "${DAEMON_PID:-}" ] || {
        tail -n 40 "$DAEMON_LOG" >&2
        kill -TERM "$DAEMON_PID" 2>/dev/null || true
        eventually 60 daemon_is_gone || kill -KILL "$DAEMON_PID"
        rm -rf "$PLACE"
    }
}
