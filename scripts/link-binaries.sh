#!/bin/sh
# Puts the binaries where users look for them, at the top of the build folder.
set -eu
cd "$1"
for file in src/cli/warmpool src/daemon/warmpoold src/lib/libwarmpool.a src/lib/libwarmpool.so src/lib/libwarmpool.so.0; do
    [ ! -e "$file" ] || ln -sf "$file" "${file##*/}"
done
