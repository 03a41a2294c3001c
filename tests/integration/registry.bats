# Images from a real registry with a login: pulled, pinned, refused, missing, and gone in the middle.
load helper
load registry

setup_file() {
    registry_place "$(mktemp -d /tmp/wp-registry-XXXXXX)" agent:s3cret-word
    registry_start
    local version
    for version in 1 2; do
        registry_image $version
        registry_push "team/agent:$version" "wp-registry-test:$version"
    done
    head -c 150000000 /dev/urandom >"$REGISTRY_PLACE/large"
    tar c -C "$REGISTRY_PLACE" large | docker import - wp-registry-test:large >/dev/null
    registry_push team/large:1 wp-registry-test:large
    scripts_images armv && registry_push team/foreign:1 warmpool-test-armv:1
    docker rmi -f wp-registry-test:1 wp-registry-test:2 wp-registry-test:large >/dev/null
    DIGEST=$(curl -s -u agent:s3cret-word -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' -I \
        "http://$REGISTRY/v2/team/agent/manifests/1" | tr -d '\r' | sed -n 's/^Docker-Content-Digest: //Ip')
    export DIGEST
    [ -n "$DIGEST" ]
    LOGIN="registryAuth.username=agent registryAuth.password=s3cret-word"
    export LOGIN
}

teardown_file() {
    registry_stop
    docker images -q --filter "reference=127.0.0.1:*/team/*" | sort -u | xargs -r docker rmi -f >/dev/null 2>&1
    true
}

teardown() {
    [ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 30 "$DAEMON_LOG" >&2
    daemon_finish
    forget_images
}

scripts_images() { "$ROOT/scripts/images.sh" "$@" >/dev/null; }

# A busybox that says which version it is.
registry_image() {
    local root=$REGISTRY_PLACE/root
    rm -rf "$root" && mkdir -p "$root/bin" "$root/tmp"
    cp /bin/busybox "$root/bin/busybox"
    ln -s busybox "$root/bin/sh" && ln -s busybox "$root/bin/cat"
    echo "version $1" >"$root/version"
    tar c -C "$root" . | docker import - "wp-registry-test:$1" >/dev/null
}

forget_images() {
    docker images --format '{{.Repository}}:{{.Tag}}@{{.Digest}} {{.ID}}' | grep "^$REGISTRY/" | awk '{print $2}' | sort -u |
        xargs -r docker rmi -f >/dev/null 2>&1
    true
}

# pulls KEY=VALUE...: a daemon whose coder is of the registry's image, without waiting for it.
pulls() {
    daemon_place
    daemon_launch "$@"
    eventually 10 api GET /healthz -f -o /dev/null 2>/dev/null
    INSTANCE=$(warmpool status --json | jq -r .instance)
    export INSTANCE
}

last_error() { pool_of coder '.lastError // ""'; }

error_says() { [[ "$(last_error)" == *"$1"* ]]; }

with_login() {
    pulls "dockerRegistry=$REGISTRY" 'registryAuth=username=agent,password=s3cret-word' "$@"
}

@test "an image by tag, from dockerRegistry, with a login" {
    with_login agentConfigs.coder.image=team/agent:1
    eventually 60 daemon_is_ready
    [ "$(wp_run coder -- cat /version)" = "version 1" ]
    grep -q "pulled as $DIGEST" "$DAEMON_LOG"
    run ! grep -r s3cret-word "$DAEMON_LOG"
    run ! bash -c "api() { :; }; docker inspect \$(docker ps -q --filter label=$LABEL=$INSTANCE) | grep s3cret-word"
}

@test "a reference that names its registry, by digest" {
    with_login "agentConfigs.coder.image=$REGISTRY/team/agent@$DIGEST"
    eventually 60 daemon_is_ready
    [ "$(wp_run coder -- cat /version)" = "version 1" ]
}

@test "the password from a file" {
    echo s3cret-word >"$REGISTRY_PLACE/password"
    pulls "dockerRegistry=$REGISTRY" "registryAuth=username=agent,passwordFile=$REGISTRY_PLACE/password" agentConfigs.coder.image=team/agent:2
    eventually 60 daemon_is_ready
    [ "$(wp_run coder -- cat /version)" = "version 2" ]
}

# registry_tag FROM TO: the tag TO of team/agent means there what FROM does.
registry_tag() {
    local type=application/vnd.docker.distribution.manifest.v2+json url=http://$REGISTRY/v2/team/agent/manifests
    curl -sf -u agent:s3cret-word -H "Accept: $type" "$url/$1" |
        curl -sf -u agent:s3cret-word -H "Content-Type: $type" -X PUT --data-binary @- "$url/$2"
}

no_container_is_there() { [ -z "$(docker ps -aq --filter "label=$LABEL=$INSTANCE")" ]; }

@test "a tag that moves later means the same image to a pool that lives" {
    registry_tag 1 moving
    with_login agentConfigs.coder.image=team/agent:moving minPoolSize=0 maxPoolSize=3 containerIdleTimeout=5s
    eventually 60 daemon_is_ready
    registry_tag 2 moving
    docker --config "$REGISTRY_PLACE/docker" pull -q "$REGISTRY/team/agent:moving"
    warmpool warm coder 3
    [ "$(docker inspect --format '{{.Image}}' $(docker ps -q --filter "label=$LABEL=$INSTANCE") | sort -u | wc -l)" = 1 ]
    [ "$(wp_run coder -- cat /version)" = "version 1" ]
    # Removed altogether it comes back as it was: by its digest.
    eventually 60 no_container_is_there # for want of tasks
    forget_images
    [ -z "$(docker images -q "$REGISTRY/team/agent")" ]
    [ "$(wp_run coder -- cat /version)" = "version 1" ]
    docker image inspect "$REGISTRY/team/agent@$DIGEST" >/dev/null
}

@test "a wrong password, and none" {
    pulls "dockerRegistry=$REGISTRY" 'registryAuth=username=agent,password=wrong-word' agentConfigs.coder.image=team/agent:1
    eventually 20 error_says registryAuth
    run ! grep wrong-word "$DAEMON_LOG"
    run -125 wp_run coder -- true
    [[ "$output" == *registryAuth* ]]
    daemon_finish
    pulls "dockerRegistry=$REGISTRY" agentConfigs.coder.image=team/agent:1
    eventually 20 error_says registryAuth
}

@test "no such tag, no such image" {
    with_login agentConfigs.coder.image=team/agent:9
    eventually 20 error_says "team/agent:9"
    eventually 20 error_says "could not be pulled"
}

@test "the registry is down, and comes up" {
    registry_kill
    with_login agentConfigs.coder.image=team/agent:1
    eventually 20 error_says "cannot be reached"
    registry_start
    eventually 60 daemon_is_ready
    [ "$(wp_run coder -- cat /version)" = "version 1" ]
}

is_pulling() { [ "$(api GET /v1/status | jq -r '.pulling.bytes // 0')" -gt 1000000 ]; }

@test "the registry dies in the middle of a pull" {
    with_login agentConfigs.coder.image=team/large:1
    eventually 20 is_pulling
    registry_kill
    eventually 120 error_says "could not be pulled"
    [ -z "$(docker images -q "$REGISTRY/team/large:1")" ]
    registry_start
}

@test "an image for another architecture is refused before a container is made" {
    with_login agentConfigs.coder.image=team/foreign:1
    eventually 60 error_says arm64
    [ -z "$(docker ps -aq --filter "label=$LABEL=$INSTANCE")" ]
}

@test "preloadCommonImages pulls for every configured type, false for those that are used" {
    with_login agentConfigs.later.image=team/agent:2
    eventually 60 daemon_is_ready
    eventually 20 docker image inspect "$REGISTRY/team/agent:2" >/dev/null
    daemon_finish
    forget_images
    with_login agentConfigs.later.image=team/agent:2 preloadCommonImages=false
    eventually 60 daemon_is_ready
    sleep 1
    run ! docker image inspect "$REGISTRY/team/agent:2"
    [ "$(wp_run later -- cat /version)" = "version 2" ]
}

@test "the default image is made here, never pulled" {
    pulls "agentConfigs.coder.image=warmpool-agent:elsewhere"
    eventually 20 error_says "image build"
}

@test "up shows the pull" {
    daemon_place
    WARMPOOL_CONFIG=/dev/null warmpool up --set "stateDir=$STATE" --set warmupAgentTypes=coder --set poolSize=1 \
        --set "dockerRegistry=$REGISTRY" --set 'registryAuth=username=agent,password=s3cret-word' \
        --set agentConfigs.coder.image=team/large:1 --timeout 5s >"$PLACE/out" 2>&1 || true
    INSTANCE=$(warmpool status --json | jq -r .instance)
    DAEMON_PID=$(warmpool status --json | jq -r .pid)
    DAEMON_LOG=$PLACE/api.log
    grep -q "pulling team/large:1: [0-9]* of [0-9]* MB" "$PLACE/out"
}
