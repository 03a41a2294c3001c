#!/usr/bin/env bats
# `warmpool image pull`: from real registries, with a login, a wrong one and none; up, down and gone in the middle.

load helper
load registry

setup_file() {
    registry_place "$(mktemp -d /tmp/wp-registry-XXXXXX)" agent:s3cret-word
    registry_start
    docker import - "wp-pull-$$:1" < <(small_root) >/dev/null
    "$ROOT/scripts/images.sh" armv >/dev/null # `docker import --platform` makes images of this machine's architecture
    head -c 200000000 /dev/urandom >"$REGISTRY_PLACE/large"
    docker import - "wp-pull-$$:large" < <(tar c -C "$REGISTRY_PLACE" large) >/dev/null
    rm "$REGISTRY_PLACE/large"
    registry_push team/agent:1 "wp-pull-$$:1"
    registry_push team/arm:1 warmpool-test-armv:1
    registry_push team/large:1 "wp-pull-$$:large"
    docker rmi -f "wp-pull-$$:1" "wp-pull-$$:large" >/dev/null
    DIGEST=$(digest_of team/agent)
    export DIGEST
    [[ $DIGEST == sha256:* ]]
    export WARMPOOL_CONFIG=/dev/null
}

teardown_file() {
    registry_stop
    forget
}

setup() {
    errors=$BATS_TEST_TMPDIR/errors
}

teardown() {
    forget
}

small_root() {
    local root=$REGISTRY_PLACE/root
    mkdir -p "$root/bin"
    cp /bin/busybox "$root/bin/sh"
    tar c -C "$root" .
    rm -rf "$root"
}

forget() {
    docker images --format '{{.Repository}} {{.ID}}' | sed -En "s,^(127.0.0.1|localhost):${REGISTRY#*:}/[^ ]* ,,p" | sort -u |
        xargs -r docker rmi -f >/dev/null 2>&1 || true
}

manifest() { # manifest METHOD NAME REFERENCE [CURL ARGUMENTS...]
    local method=$1 name=$2 reference=$3
    shift 3
    curl -s -f -u agent:s3cret-word -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' -X "$method" "$@" \
        "http://$REGISTRY/v2/$name/manifests/$reference"
}

digest_of() {
    manifest HEAD "$1" 1 -I | tr -d '\r' | sed -n 's/^Docker-Content-Digest: //Ip'
}

# pull_with LOGIN ARGUMENTS...: LOGIN as of registryAuth; output without the progress, which goes to $errors
pull_with() {
    local login=$1
    shift
    timeout 200 "$BUILD/warmpool" image pull --set "registryAuth=$login" --set "dockerRegistry=$REGISTRY" "$@" 2>"$errors"
}

LOGIN=username=agent,password=s3cret-word

@test "by tag, prints the digest; the progress goes to stderr" {
    run pull_with $LOGIN team/agent:1
    [ "$status" = 0 ]
    [ "$output" = "$REGISTRY/team/agent:1 $DIGEST" ]
    grep -q "^pulling $REGISTRY/team/agent:1: [0-9]* of [0-9]* MB, 1 of 1 layers, Pull complete" "$errors"
    run docker image inspect --format '{{index .RepoDigests 0}}' "$REGISTRY/team/agent:1"
    [ "$output" = "$REGISTRY/team/agent@$DIGEST" ]
    run pull_with $LOGIN team/agent:1 # and once more, when it is there
    [ "$status" = 0 ]
    [ "$output" = "$REGISTRY/team/agent:1 $DIGEST" ]
}

@test "by digest, from the registry that the reference names" {
    run pull_with $LOGIN "$REGISTRY/team/agent@$DIGEST"
    [ "$status" = 0 ]
    [ "$output" = "$REGISTRY/team/agent@$DIGEST $DIGEST" ]
    docker image inspect "$REGISTRY/team/agent@$DIGEST" >/dev/null
}

@test "the password of a file" {
    echo s3cret-word >"$BATS_TEST_TMPDIR/password"
    run pull_with "username=agent,passwordFile=$BATS_TEST_TMPDIR/password" team/agent:1
    [ "$status" = 0 ]
    run pull_with "username=agent,passwordFile=$BATS_TEST_TMPDIR/nothing" team/agent:1
    [ "$status" = 1 ]
    grep -q "registryAuth: reading passwordFile $BATS_TEST_TMPDIR/nothing: No such file" "$errors"
}

@test "a wrong password, no login: the error says so and never the password" {
    run pull_with username=agent,password=wr0ng-word team/agent:1
    [ "$status" = 1 ]
    [ -z "$output" ]
    grep -q "registryAuth" "$errors"
    run ! grep -q wr0ng-word "$errors"
    run -1 "$BUILD/warmpool" image pull "$REGISTRY/team/agent:1"
    [[ $output == *"no basic auth credentials (the registry wants a login: registryAuth)" ]]
    run -1 docker image inspect "$REGISTRY/team/agent:1"
}

@test "the login goes to dockerRegistry, and to no other" {
    # Another name of the same registry would take the login, and does not get it.
    run pull_with $LOGIN "localhost:${REGISTRY#*:}/team/agent:1"
    [ "$status" = 1 ]
    grep -q "no basic auth credentials" "$errors"
}

@test "a missing tag, a missing repository, no reference at all" {
    run pull_with $LOGIN team/agent:none
    [ "$status" = 1 ]
    grep -q "pull image $REGISTRY/team/agent:none: .*manifest unknown" "$errors"
    run pull_with $LOGIN team/nobody:1
    [ "$status" = 1 ]
    grep -Eq "pull image $REGISTRY/team/nobody:1: .*(unknown|not found|does not exist)" "$errors"
    run pull_with $LOGIN Team/agent
    [ "$status" = 2 ]
    grep -q '"Team/agent" is no image reference' "$errors"
}

@test "an image for another architecture: pulled, and refused by name" {
    run pull_with $LOGIN team/arm:1
    [ "$status" = 1 ]
    [ -z "$output" ]
    grep -q "image $REGISTRY/team/arm:1 was pulled, but is made for linux/arm64; the engine's host is linux/" "$errors"
}

@test "a list of images for other architectures" {
    local size
    size=$(manifest GET team/arm 1 | wc -c)
    jq -n --arg digest "$(digest_of team/arm)" --argjson size "$size" '{schemaVersion: 2,
        mediaType: "application/vnd.docker.distribution.manifest.list.v2+json",
        manifests: [{mediaType: "application/vnd.docker.distribution.manifest.v2+json", $digest, $size,
            platform: {architecture: "arm64", os: "linux"}}]}' |
        manifest PUT team/arm list -H 'Content-Type: application/vnd.docker.distribution.manifest.list.v2+json' --data-binary @-
    run pull_with $LOGIN team/arm:list
    [ "$status" = 1 ]
    grep -q "no matching manifest for linux/.* (the registry has this image for other architectures than the engine's)" "$errors"
}

@test "a registry without a login" {
    local locked=$REGISTRY_PLACE locked_name=$REGISTRY
    registry_place "$(mktemp -d /tmp/wp-registry-XXXXXX)"
    registry_start
    docker import - "wp-pull-$$:1" < <(small_root) >/dev/null
    registry_push open:1 "wp-pull-$$:1"
    docker rmi -f "wp-pull-$$:1" >/dev/null
    run "$BUILD/warmpool" image pull --set "dockerRegistry=$REGISTRY" open:1
    echo "$output"
    forget
    registry_stop
    REGISTRY_PLACE=$locked REGISTRY=$locked_name
    [ "$status" = 0 ]
    [[ $output == *"/open:1 sha256:"* ]]
}

@test "the registry is down" {
    registry_kill
    run pull_with $LOGIN team/agent:1
    registry_start
    [ "$status" = 1 ]
    grep -q "connection refused (the registry cannot be reached: is it running?)" "$errors"
}

# A registry that runs a hundredth of the time: the pull takes long enough to be disturbed.
slowly() {
    local pid
    pid=$(cat "$REGISTRY_PLACE/pid")
    while kill -STOP "$pid" 2>/dev/null; do
        sleep 0.2
        kill -CONT "$pid" 2>/dev/null
        sleep 0.005
    done
}

large_begins() {
    local from=$SECONDS
    slowly &
    SLOW=$!
    pull_with $LOGIN team/large:1 >"$BATS_TEST_TMPDIR/out" &
    PULL=$!
    eventually 60 grep -Eq ": [1-9][0-9]* of 200 MB, 0 of 1 layers, Downloading" "$BATS_TEST_TMPDIR/errors"
}

@test "the registry dies in the middle of a pull and comes back: the engine goes on" {
    large_begins
    registry_kill
    wait "$SLOW" || true
    registry_start
    wait "$PULL"
    grep -q "^$REGISTRY/team/large:1 sha256:" "$BATS_TEST_TMPDIR/out"
    docker image inspect "$REGISTRY/team/large:1" >/dev/null
}

@test "on a terminal the progress is one line that is rewritten" {
    run script -qec "'$BUILD/warmpool' image pull --set registryAuth=$LOGIN --set dockerRegistry=$REGISTRY team/agent:1" /dev/null
    [ "$status" = 0 ]
    [[ $output == *$'\r'"pulling $REGISTRY/team/agent:1: "* ]]
    [ "$(grep -c "pulling" <<<"$output")" = 1 ]
    [[ $output == *"$REGISTRY/team/agent:1 $DIGEST"* ]]
}
