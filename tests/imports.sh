#!/bin/sh
# The import check passes on this tree and finds each planted violation. TAP.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
check=$root/scripts/check-imports.sh
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
number=0

report() {
    number=$((number + 1))
    if [ "$1" = 0 ]; then echo "ok $number - $2"; else echo "not ok $number - $2"; fi
}

plant() { # FILE LINE
    rm -rf "$copy/src"
    cp -r "$root/src" "$copy/src"
    echo "$2" >>"$copy/$1"
    if "$check" "$copy" >/dev/null; then report 1 "finds '$2' in $1"; else report 0 "finds '$2' in $1"; fi
}

echo 1..8
if "$check" "$root"; then report 0 "this tree"; else report 1 "this tree"; fi
plant src/base/buffer.c '#include "pool/pool.h"'
plant src/pool/pool.c '#include <uv.h>'
plant src/pool/pool.c 'static long now(void) { return time(NULL); }'
plant src/runner/main.c '#include "base/log.h"'
plant src/transport/socket.c '#include "executor/executor.h"'
plant src/maintenance/health.c '#include <curl/curl.h>'
plant src/engine/engine.c '#include "engine_priv.h"'
