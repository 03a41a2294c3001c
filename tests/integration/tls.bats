#!/usr/bin/env bats
# An engine that is reached by TLS: a second dockerd with --tlsverify, in a network namespace of its own.

load helper
load second_dockerd

setup_file() {
    # Not in $TMPDIR: the data of an engine wants a file system that overlayfs takes.
    SECOND=$(mktemp -d /var/tmp/wp-second-XXXXXX)
    export SECOND
    second_dockerd_start "$SECOND"
    export ENGINE=tcp://$SECOND_ADDRESS:2376 CERTS=$SECOND/certs
    certificate_authority "$CERTS/other-authority" "somebody else's authority"
    certificate "$CERTS/authority" "$CERTS/expired" client -1 clientAuth
    certificate "$CERTS/other-authority" "$CERTS/stranger" client 2 clientAuth
    certificate "$CERTS/authority" "$CERTS/server-only" client 2 serverAuth
    certificate "$CERTS/authority" "$CERTS/expired-server" engine -1 serverAuth "IP:127.0.0.1"
    certificate "$CERTS/authority" "$CERTS/other-name" engine 2 serverAuth "DNS:another.example"
    cp "$CERTS/authority/ca.pem" "$CERTS/stranger/ca.pem"
}

teardown_file() {
    [ -z "${SECOND:-}" ] || second_dockerd_stop "$SECOND"
    [ ! -e "/run/netns/$SECOND_NETNS" ]
    [ ! -e "/sys/class/net/$SECOND_LINK" ]
    [ ! -e "$SECOND" ]
}

# doctor_says WORDS HOST DIRECTORY: what users are told, by the program that asks the engine first.
doctor_says() {
    run env -u DOCKER_HOST -u DOCKER_CERT_PATH WARMPOOL_CONFIG=/dev/null "$BUILD/warmpoold" doctor \
        --set stateDir="$BATS_TEST_TMPDIR/state" --set dockerHost="$2" --set dockerCertPath="$3"
    [ "$status" != 0 ] || { echo "doctor is content: $output"; return 1; }
    [[ $output == *"$1"* ]] || { echo "no \"$1\" in: $output"; return 1; }
    [[ $output == *"$2"* ]] || { echo "the endpoint is not named: $output"; return 1; }
}

# A server of TLS with a certificate that is not right; $PORT is its port.
wrong_server() { # DIRECTORY
    openssl s_server -accept 127.0.0.1:0 -cert "$1/cert.pem" -key "$1/key.pem" -quiet -naccept 20 -no_dhe \
        >"$BATS_TEST_TMPDIR/server" 2>&1 </dev/null 3>&- &
    SERVER=$!
    eventually 10 find_port
}

find_port() {
    PORT=$(ss -Hltnp | awk -v pid="pid=$SERVER," 'index($0, pid) {sub(/.*:/, "", $4); print $4}')
    [ -n "$PORT" ]
}

teardown() {
    [ -z "${SERVER:-}" ] || kill "$SERVER" 2>/dev/null || true
}

@test "the conformance suite passes by TLS, attach streams and outages included" {
    run env DOCKER_HOST="$ENGINE" DOCKER_CERT_PATH="$CERTS/client" WARMPOOL_TEST_ENGINE_PID="$SECOND_PID" \
        "$BUILD/tests/engine/engine-conformance"
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"OK ] test_echo"* ]]
    [[ $output != *SKIPPED* ]]
}

@test "the conformance suite passes by plain TCP, which is warned of" {
    port=$((20000 + $$ % 10000))
    socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" UNIX-CONNECT:"$SECOND/docker.sock" 3>&- &
    SERVER=$!
    sleep 0.3
    run env -u DOCKER_CERT_PATH -u DOCKER_TLS_VERIFY DOCKER_HOST="tcp://127.0.0.1:$port" WARMPOOL_TEST_ENGINE_PID="$SECOND_PID" \
        WARMPOOL_TEST_LOG=1 "$BUILD/tests/engine/engine-conformance"
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"warn: engine: tcp://127.0.0.1:$port is plain TCP: whoever reaches that port is root"* ]]
}

@test "the right certificates are taken, from the configuration and from docker's variables" {
    WARMPOOL_CONFIG=/dev/null run "$BUILD/warmpoold" doctor --set stateDir="$BATS_TEST_TMPDIR/state" \
        --set dockerHost="$ENGINE" --set dockerCertPath="$CERTS/client"
    [[ $output == *"API 1.41"* ]] || { echo "$output"; return 1; }
    mkdir "$BATS_TEST_TMPDIR/home"
    ln -s "$CERTS/client" "$BATS_TEST_TMPDIR/home/.docker"
    WARMPOOL_CONFIG=/dev/null DOCKER_HOST=$ENGINE DOCKER_TLS_VERIFY=1 HOME=$BATS_TEST_TMPDIR/home run "$BUILD/warmpoold" doctor \
        --set stateDir="$BATS_TEST_TMPDIR/state"
    [[ $output == *"API 1.41"* ]] || { echo "$output"; return 1; }
}

@test "our certificate is refused: expired, of another authority, not for clients" {
    doctor_says "refuses cert.pem" "$ENGINE" "$CERTS/expired"
    doctor_says "expired" "$ENGINE" "$CERTS/expired"
    doctor_says "refuses cert.pem" "$ENGINE" "$CERTS/stranger"
    doctor_says "refuses cert.pem" "$ENGINE" "$CERTS/server-only"
}

@test "the engine's certificate is refused: of another authority, expired, for another name" {
    cp -r "$CERTS/client" "$BATS_TEST_TMPDIR/other-ca"
    cp "$CERTS/other-authority/ca.pem" "$BATS_TEST_TMPDIR/other-ca/ca.pem"
    doctor_says "is not of the authority in ca.pem" "$ENGINE" "$BATS_TEST_TMPDIR/other-ca"
    wrong_server "$CERTS/expired-server"
    doctor_says "the engine's certificate has expired: renew it" "tcp://127.0.0.1:$PORT" "$CERTS/client"
    kill "$SERVER"
    wrong_server "$CERTS/other-name"
    doctor_says "the engine's certificate is for another name" "tcp://127.0.0.1:$PORT" "$CERTS/client"
}

@test "docker's switch that turns verification off does not" {
    wrong_server "$CERTS/expired-server"
    DOCKER_TLS_VERIFY='' doctor_says "the engine's certificate has expired" "tcp://127.0.0.1:$PORT" "$CERTS/client"
}

@test "files that are missing, empty or of each other's certificates are named" {
    cp -r "$CERTS/client" "$BATS_TEST_TMPDIR/broken"
    rm "$BATS_TEST_TMPDIR/broken/key.pem"
    doctor_says "$BATS_TEST_TMPDIR/broken/key.pem cannot be read: No such file" "$ENGINE" "$BATS_TEST_TMPDIR/broken"
    cp "$CERTS/stranger/key.pem" "$BATS_TEST_TMPDIR/broken/key.pem"
    doctor_says "key.pem does not belong to cert.pem" "$ENGINE" "$BATS_TEST_TMPDIR/broken"
    : >"$BATS_TEST_TMPDIR/broken/cert.pem"
    doctor_says "cert.pem holds no certificate" "$ENGINE" "$BATS_TEST_TMPDIR/broken"
    cp "$CERTS/client"/*.pem "$BATS_TEST_TMPDIR/broken"
    echo nonsense >"$BATS_TEST_TMPDIR/broken/ca.pem"
    doctor_says "ca.pem holds no certificate" "$ENGINE" "$BATS_TEST_TMPDIR/broken"
}

@test "plain TCP to the port of TLS, and the reverse" {
    doctor_says "wants TLS: set dockerCertPath" "$ENGINE" ""
    port=$((20000 + $$ % 10000))
    socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" UNIX-CONNECT:"$SECOND/docker.sock" 3>&- &
    SERVER=$!
    sleep 0.3
    doctor_says "does not speak TLS" "tcp://127.0.0.1:$port" "$CERTS/client"
}

@test "an engine that is killed by its network is told of within the deadline" {
    ip link set "$SECOND_LINK" down
    code=0
    SECONDS=0
    doctor_says "the engine at" "$ENGINE" "$CERTS/client" || code=1
    ip link set "$SECOND_LINK" up
    [ $code = 0 ]
    [ $SECONDS -lt 30 ]
    eventually 20 second_dockerd_answers "$SECOND"
}

@test "tasks run on an engine that is reached by TLS, by the attach stream, and nothing is left" {
    unset DOCKER_HOST
    DOCKER_HOST=unix://$SECOND/docker.sock
    export DOCKER_HOST
    "$BUILD/warmpoold" image build
    daemon_start dockerHost="$ENGINE" dockerCertPath="$CERTS/client" poolSize=2
    [ "$(warmpool status --json | jq -r .engine.transport)" = attach ]
    [ "$(wp_run coder -- sh -c 'seq 300000' | md5sum)" = "$(seq 300000 | md5sum)" ]
    [ "$(seq 300000 | warmpool run -i coder -- md5sum)" = "$(seq 300000 | md5sum)" ]
    run -3 wp_run coder -- sh -c 'touch /tmp/left; exit 3'
    [ "$(wp_run coder -- ls -A /tmp)" = "" ]
    echo there >"$PLACE/file"
    [ "$(wp_run --copy-in "$PLACE/file:file" coder -- cat file)" = there ]
    run -124 wp_run --timeout 500ms coder -- sleep 60
    audit
    daemon_finish
}
