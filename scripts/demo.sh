#!/bin/bash
# `make run`: warms three pools, runs real work on this repository's own source in them, and does the same work with docker exec and
# docker run beside it. Everything that is printed was measured in this run; nothing is left behind.
#
#     scripts/demo.sh [BUILD]
set -eu
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}")
place=$(mktemp -d "${TMPDIR:-/tmp}/warmpool-demo-XXXXXX")
socket=$place/api.sock
image=warmpool-agent:latest
label=io.warmpool.demo=$(basename "$place")
wp() { "$build/warmpool" --socket "$socket" "$@"; }

cleanup() {
    wp down --force >/dev/null 2>&1 || true
    docker ps -aq --filter "label=$label" | xargs -r docker rm -f >/dev/null 2>&1 || true
    rm -rf "$place"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Bash's own clock, read without starting a process: microseconds in $now.
tick() { now=${EPOCHREALTIME/[.,]/}; }
title() { printf '\n\033[1m%s\033[0m\n' "$*"; }
ms() { awk -v us="$1" 'BEGIN { printf "%.1f", us / 1000 }'; }

title "warmpool up"
wp up --set stateDir="$place/state" --set warmupAgentTypes=coder,tester,reviewer
instance=$(wp status --json | sed 's/.*"instance":"\([0-9a-f]*\)".*/\1/')
wp status

tar c src include scripts >"$place/tree.tar"
# For docker exec: a container a type, with the limits that the profile has.
plain=(--label "$label" --network none -w /workspace --tmpfs /workspace:exec,mode=1777)
limits_of() {
    case $1 in
    coder) echo --cpus 1.0 --memory 512m ;;
    tester) echo --cpus 0.5 --memory 256m ;;
    reviewer) echo --cpus 0.25 --memory 128m ;;
    esac
}
declare -A containers
for type in coder tester reviewer; do
    # shellcheck disable=SC2046
    containers[$type]=$(docker run -d --rm "${plain[@]}" $(limits_of $type) "$image" sleep 600)
done

coder='set -e
rm -rf tree && mkdir tree && cd tree && tar x
for folder in src/*; do
    echo "$(basename $folder) $(cat $folder/*.[ch] $folder/*/*.[ch] 2>/dev/null | wc -l)"
done | sort -k2 -n -r | awk "{ printf \"  %-12s %6d lines\n\", \$1, \$2; sum += \$2 } END { printf \"  %-12s %6d lines\n\", \"all\", sum }"
find src -name "*.[ch]" -exec sed -i "s/\bworker_retire\b/container_retire/g" {} +
echo "  worker_retire renamed in $(grep -rl container_retire src | wc -l) files; new checksum $(find src -type f | sort | xargs cat | sha256sum | cut -c1-16)"'

tester='rm -rf tree && mkdir tree && cd tree && tar x || exit 99
failed=0
check() { if eval "$2"; then echo "  ok      $1"; else echo "  FAILED  $1"; failed=$((failed + 1)); fi; }
check "every header guards itself"            "! grep -L \"pragma once\" \$(find src -name \"*.h\") | grep -q ."
check "no tabs in C"                          "! grep -rl \"	\" src | grep -q ."
check "the pool reads no clock"               "! grep -q clock_ src/pool/*.c"
check "no C file is longer than 300 lines"    "! find src -name \"*.c\" | xargs wc -l | awk \"\\\$2 != \\\"total\\\" && \\\$1 > 300\" | grep -q ."
echo "  $failed failed" >&2
exit $failed'

reviewer='rm -rf tree && mkdir tree && cd tree && tar x || exit 99
echo "  longest files:"
find src -name "*.c" | xargs wc -l | grep -v total | sort -n -r | head -3 | awk "{ printf \"    %5d %s\n\", \$1, \$2 }"
echo "  functions: $(cat $(find src -name "*.c") | grep -cE "^[a-z].*\)$")"
echo "  unfinished words: $(grep -rnwE "TODO|FIXME|XXX" src | wc -l)"
echo "  most included: $(cat $(find src -name "*.[ch]") | sed -n "s/^#include [<\"]\(.*\)[>\"]/\1/p" | sort | uniq -c | sort -n -r | head -1 | awk "{ print \$2, \"(\" \$1 \" times)\" }")"'

rows=$place/rows
one() { # TYPE SCRIPT
    local type=$1 script=$2 begun code=0 exec_us run_us wp_us result hit limits
    read -ra limits <<<"$(limits_of "$type")"
    title "$type: $type's work on src/, sent in as a tar on stdin"
    tick && begun=$now
    wp run "$type" -i -- sh -c "$script" <"$place/tree.tar" || code=$?
    tick && wp_us=$((now - begun))
    echo "  exit code $code"
    result=$(wp run "$type" -i --json -- sh -c "$script" <"$place/tree.tar") || true
    hit=$(echo "$result" | sed 's/.*"hit":\([a-z]*\).*/\1/')
    tick && begun=$now
    docker exec -i "${containers[$type]}" sh -c "$script" <"$place/tree.tar" >/dev/null 2>&1 || true
    tick && exec_us=$((now - begun))
    tick && begun=$now
    docker run --rm -i "${plain[@]}" "${limits[@]}" "$image" sh -c "$script" <"$place/tree.tar" >/dev/null 2>&1 || true
    tick && run_us=$((now - begun))
    echo "$type $code $([ "$hit" = true ] && echo hit || echo miss) $(ms $wp_us) $(ms $exec_us) $(ms $run_us)" >>"$rows"
}
one coder "$coder"
one tester "$tester"
one reviewer "$reviewer"

# What is left of the time when the work itself is next to nothing: `true`, nine times each, medians.
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
times() { # COMMAND...: microseconds, a line a run
    local begun
    for _ in 1 2 3 4 5 6 7 8 9; do
        tick && begun=$now
        "$@" >/dev/null 2>&1 || true
        tick && echo $((now - begun))
    done
}
wp_us=$(times wp run coder -- true | median)
exec_us=$(times docker exec "${containers[coder]}" true | median)
run_us=$(times docker run --rm --label "$label" --network none "$image" true | median)
echo "true - hit $(ms "$wp_us") $(ms "$exec_us") $(ms "$run_us")" >>"$rows"

title "the same commands, ms as the caller waits"
awk 'BEGIN { printf "%-10s %5s %5s %14s %14s %14s %12s %12s\n", "task", "code", "pool", "warmpool run", "docker exec", "docker run", "x exec", "x run" }
    { printf "%-10s %5s %5s %14s %14s %14s %11.1fx %11.1fx\n", $1, $2, $3, $4, $5, $6, $5 / $4, $6 / $4 }' "$rows"
echo "(the first three rows are mostly the work itself; \"true\" is the overhead, median of nine. \`make bench\` measures properly.)"

title "warmpool metrics, then down"
wp metrics
docker rm -f "${containers[@]}" >/dev/null 2>&1 || true
wp down
echo "left of instance $instance: $(docker ps -aq --filter "label=io.warmpool.instance=$instance" | wc -l) containers," \
    "$(docker network ls -q --filter "label=io.warmpool.instance=$instance" | wc -l) networks," \
    "$(docker volume ls -q --filter "label=io.warmpool.instance=$instance" | wc -l) volumes"
