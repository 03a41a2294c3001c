# A second dockerd beside the one that is there, with everything of its own: network namespace (or else it would delete the
# first one's bridge), data, processes, containerd. It is reached by TLS over a pair of virtual interfaces.
#
#     second_dockerd_start DIRECTORY   # sets SECOND_ADDRESS, SECOND_PID, SECOND_NETNS; certificates in DIRECTORY/certs/...
#     second_dockerd_stop DIRECTORY

# certificate_authority DIRECTORY NAME: ca.pem and ca-key.pem
certificate_authority() {
    mkdir -p "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$2" \
        -keyout "$1/ca-key.pem" -out "$1/ca.pem" 2>/dev/null
}

# certificate AUTHORITY DIRECTORY NAME DAYS USAGE [NAMES]: ca.pem, cert.pem and key.pem, as docker wants them.
certificate() {
    mkdir -p "$2"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$3" -keyout "$2/key.pem" -out "$2/request" 2>/dev/null
    {
        echo "extendedKeyUsage=$5"
        [ -z "${6:-}" ] || echo "subjectAltName=$6"
    } >"$2/extensions"
    openssl x509 -req -in "$2/request" -CA "$1/ca.pem" -CAkey "$1/ca-key.pem" -CAcreateserial -days "$4" -extfile "$2/extensions" \
        -out "$2/cert.pem" 2>/dev/null
    cp "$1/ca.pem" "$2/ca.pem"
}

second_dockerd_answers() {
    docker --tlsverify --tlscacert "$1/certs/client/ca.pem" --tlscert "$1/certs/client/cert.pem" \
        --tlskey "$1/certs/client/key.pem" -H "tcp://$SECOND_ADDRESS:2376" version >/dev/null 2>&1
}

second_dockerd_start() {
    local directory=$1 number=$(($$ % 250 + 1))
    SECOND_NETNS=wp-tls-$$
    SECOND_LINK=wptls$$
    SECOND_ADDRESS=10.212.$number.2
    export SECOND_NETNS SECOND_LINK SECOND_ADDRESS
    certificate_authority "$directory/certs/authority" "the engine's authority"
    certificate "$directory/certs/authority" "$directory/certs/server" engine 2 serverAuth "IP:$SECOND_ADDRESS,IP:127.0.0.1"
    certificate "$directory/certs/authority" "$directory/certs/client" client 2 clientAuth
    ip netns add "$SECOND_NETNS"
    ip link add "$SECOND_LINK" type veth peer name engine netns "$SECOND_NETNS"
    ip address add "10.212.$number.1/30" dev "$SECOND_LINK"
    ip link set "$SECOND_LINK" up
    ip -n "$SECOND_NETNS" address add "$SECOND_ADDRESS/30" dev engine
    ip -n "$SECOND_NETNS" link set engine up
    ip -n "$SECOND_NETNS" link set lo up
    # `ip netns exec` would hide the cgroup mounts.
    # shellcheck disable=SC2086
    setsid nsenter --net="/run/netns/$SECOND_NETNS" dockerd ${SECOND_ARGUMENTS:-} --data-root "$directory/data" --exec-root "$directory/exec" \
        --pidfile "$directory/pid" -H "unix://$directory/docker.sock" -H "tcp://$SECOND_ADDRESS:2376" --tlsverify \
        --tlscacert "$directory/certs/server/ca.pem" --tlscert "$directory/certs/server/cert.pem" \
        --tlskey "$directory/certs/server/key.pem" >"$directory/log" 2>&1 </dev/null 3>&- &
    SECOND_PID=$!
    export SECOND_PID
    eventually 60 second_dockerd_answers "$directory" || {
        tail -n 30 "$directory/log" >&2
        return 1
    }
}

second_dockerd_is_gone() {
    ! kill -0 "$SECOND_PID" 2>/dev/null
}

second_dockerd_stop() {
    local directory=$1 left=0 mount
    if [ -n "${SECOND_PID:-}" ]; then
        kill -TERM "$SECOND_PID" 2>/dev/null
        eventually 30 second_dockerd_is_gone || {
            tail -n 30 "$directory/log" >&2
            kill -KILL "$SECOND_PID"
            left=1
        }
    fi
    [ -z "${SECOND_LINK:-}" ] || ip link delete "$SECOND_LINK"
    [ -z "${SECOND_NETNS:-}" ] || ip netns delete "$SECOND_NETNS"
    # Namespaces of networks, and what a killed one leaves.
    for mount in $(cut -d' ' -f2 /proc/self/mounts | grep -F "$directory/" | sort -r); do umount -l "$mount"; done
    rm -rf "$directory"
    return $left
}
