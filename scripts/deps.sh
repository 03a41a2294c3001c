#!/bin/sh
# Installs the Debian packages that a purpose needs and that are missing, and starts a Docker Engine where none answers.
#
#     scripts/deps.sh build|run|test|bench|example
#
# Nothing missing: no network, no output, well under a second.
set -eu

build="gcc libc6-dev make meson ninja-build pkg-config libuv1-dev libcurl4-openssl-dev libmicrohttpd-dev libjansson-dev
    libfyaml-dev libarchive-dev musl-tools"
run="busybox-static ca-certificates tar"
engine="docker.io iptables"
tests="libcmocka-dev bats jq socat expect faketime docker-registry apache2-utils runsc clang-format g++ curl procps git mmdebstrap
    openssl iproute2 podman runc"

purpose=${1:-build}
case $purpose in
build) packages=$build ;;
run) packages="$build $run" ;;
bench) packages="$build $run jq curl procps" ;;
example) packages="$build $run jq mmdebstrap" ;;
test) packages="$build $run $tests" ;;
*)
    echo "usage: scripts/deps.sh build|run|test|bench|example" >&2
    exit 2
    ;;
esac

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "deps: must be root (or have sudo) to run: $*" >&2
        exit 1
    fi
}

engine_answers() {
    command -v docker >/dev/null 2>&1 && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

missing_of() {
    # One query for all: a package that is not installed is either unknown to dpkg or in another state.
    # shellcheck disable=SC2086
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $1 2>/dev/null | sed -n 's/^installed //p')
    for package in $1; do
        echo "$installed" | grep -qxF "$package" || printf '%s ' "$package"
    done
}

install_missing() {
    missing=$(missing_of "$1")
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "deps: this is not a Debian system; install the equivalents of: $missing" >&2
        exit 1
    fi
    echo "deps: installing $missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # shellcheck disable=SC2086
    if ! as_root apt-get install -y --no-install-recommends $missing >"$log" 2>&1; then
        # shellcheck disable=SC2086
        if ! { as_root apt-get update && as_root apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            rm -f "$log"
            echo "deps: the packages could not be installed; what apt-get said stands above" >&2
            exit 1
        fi
    fi
    rm -f "$log"
}

start_engine() {
    echo "deps: starting a Docker Engine" >&2
    if [ -d /run/systemd/system ] && as_root systemctl start docker >/dev/null 2>&1; then
        :
    else
        # The pid file of an engine that was killed hinders the next one as soon as its number is somebody else's.
        # shellcheck disable=SC2016
        as_root sh -c 'pid=$(cat /var/run/docker.pid 2>/dev/null) || exit 0
            [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || rm -f /var/run/docker.pid'
        as_root sh -c 'setsid nohup dockerd >>/var/log/dockerd.log 2>&1 </dev/null &'
    fi
    # An engine that was killed first clears away what it had: that can take half a minute and more.
    for _ in $(seq 1 240); do
        engine_answers && return 0
        sleep 0.5
    done
    echo "deps: the Docker Engine does not answer after two minutes; look at /var/log/dockerd.log or journalctl -u docker" >&2
    exit 1
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "deps: not a Debian system; checked nothing. Needed: $(echo "$packages" | tr -s ' \n' ' ')" >&2
    command -v meson >/dev/null 2>&1 || exit 1
else
    install_missing "$packages"
fi
[ "$purpose" = build ] && exit 0
if ! engine_answers; then
    if [ -n "${DOCKER_HOST:-}" ]; then
        echo "deps: no engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST to use a local one" >&2
        exit 1
    fi
    command -v dockerd >/dev/null 2>&1 && command -v docker >/dev/null 2>&1 || install_missing "$engine"
    engine_answers || start_engine
fi
