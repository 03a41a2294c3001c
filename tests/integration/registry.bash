# A registry of the test's own on loopback, which an engine takes for an insecure one by itself.
#
#     registry_place DIRECTORY [LOGIN]     # sets REGISTRY (host:port); with "user:password" it wants that login
#     registry_start / registry_stop / registry_kill
#     registry_push NAME IMAGE             # IMAGE of the engine's becomes $REGISTRY/NAME there, and only there

registry_place() {
    REGISTRY_PLACE=$1
    local port
    port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])' 2>/dev/null) ||
        port=$((20000 + RANDOM % 10000))
    REGISTRY=127.0.0.1:$port
    export REGISTRY_PLACE REGISTRY
    mkdir -p "$REGISTRY_PLACE/docker"
    {
        printf 'version: 0.1\nlog: {level: error}\nhttp: {addr: "%s"}\n' "$REGISTRY"
        printf 'storage: {filesystem: {rootdirectory: "%s/data"}, delete: {enabled: true}}\n' "$REGISTRY_PLACE"
        if [ -n "${2:-}" ]; then
            htpasswd -Bbc "$REGISTRY_PLACE/htpasswd" "${2%%:*}" "${2#*:}" 2>/dev/null
            printf 'auth: {htpasswd: {realm: test, path: "%s/htpasswd"}}\n' "$REGISTRY_PLACE"
            printf '{"auths": {"%s": {"auth": "%s"}}}\n' "$REGISTRY" "$(printf %s "$2" | base64 -w0)" \
                >"$REGISTRY_PLACE/docker/config.json"
        fi
    } >"$REGISTRY_PLACE/config.yml"
}

registry_answers() {
    [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$REGISTRY/v2/")" != 000 ]
}

registry_start() {
    setsid docker-registry serve "$REGISTRY_PLACE/config.yml" >>"$REGISTRY_PLACE/log" 2>&1 </dev/null 3>&- &
    echo $! >"$REGISTRY_PLACE/pid"
    disown # what it dies of is no news
    eventually 20 registry_answers
}

registry_kill() {
    kill -KILL "$(cat "$REGISTRY_PLACE/pid")" 2>/dev/null
    rm -f "$REGISTRY_PLACE/pid"
}

registry_stop() {
    [ ! -e "$REGISTRY_PLACE/pid" ] || registry_kill
    rm -rf "$REGISTRY_PLACE"
}

registry_push() {
    docker tag "$2" "$REGISTRY/$1"
    docker --config "$REGISTRY_PLACE/docker" push -q "$REGISTRY/$1"
    docker rmi "$REGISTRY/$1" >/dev/null
}
