#!/bin/sh
# The import directions: a folder of src/ includes only itself and what stands below it. Prints each violation; exit 1 if any.
#
#     scripts/check-imports.sh [ROOT]
set -eu
cd "${1:-$(dirname "$0")/..}"

allowed_for() {
    case $1 in
    base) echo "base" ;;
    wire) echo "wire" ;;
    tree) echo "tree wire" ;;
    runner) echo "runner tree wire" ;;
    config) echo "config base" ;;
    pool) echo "pool base" ;;
    maintenance) echo "maintenance pool base" ;;
    transport) echo "transport pool config wire base" ;;
    engine) echo "engine config base" ;;
    telemetry) echo "telemetry pool config base" ;;
    store) echo "store config base" ;;
    executor) echo "executor tree telemetry store maintenance engine transport pool config wire base" ;;
    lib) echo "lib executor config base warmpool" ;;
    files) echo "files tree wire base" ;;
    api) echo "api executor telemetry config wire base" ;;
    daemon) echo "daemon api executor engine files config wire base" ;;
    cli) echo "cli wire base" ;;
    *) echo "" ;;
    esac
}

violations=$(
    for folder in src/*/; do
        name=$(basename "$folder")
        allowed=$(allowed_for "$name")
        find "$folder" -name '*.[ch]' | while read -r file; do
            sed -n 's/^#include "\([^"\/]*\)\/.*/\1/p' "$file" | sort -u | while read -r used; do
                case " $allowed " in
                *" $used "*) ;;
                *) echo "$file: $name/ must not include $used/" ;;
                esac
            done
            sed -n 's/^#include "\([^"\/]*\)".*/\1/p' "$file" | while read -r used; do
                echo "$file: includes \"$used\" without its folder"
            done
            case $name in
            pool | maintenance)
                grep -nE '#include <(uv|curl|microhttpd|jansson|libfyaml)|\b(clock_us|clock_wall_ms|clock_gettime|gettimeofday|time) *\(' "$file" |
                    sed "s|^|$file: no I/O and no clock in $name/: |" || true
                ;;
            runner | tree | wire)
                grep -nE '#include <(uv|curl|microhttpd|jansson|libfyaml|archive)|#include "base/' "$file" |
                    sed "s|^|$file: the runner links it, and sees tree/, wire/ and libc only: |" || true
                ;;
            cli)
                grep -nE '#include <(uv|curl|microhttpd|libfyaml|archive)' "$file" |
                    sed "s|^|$file: the command line tool links no heavy library: |" || true
                ;;
            esac
        done
    done
)
[ -z "$violations" ] || {
    echo "$violations"
    exit 1
}
