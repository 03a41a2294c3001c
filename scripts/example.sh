#!/bin/bash
# `make example`: three agents at work in containers of a Debian image. The coder compiles warmpool's own runner, the tester runs a
# Python suite in which one test fails (and must), the reviewer reads the sources with cppcheck. What they made comes back as files.
# Exit code 0 only if all went as expected and nothing is left.
#
#     scripts/example.sh [BUILD [DIRECTORY]]     results go to DIRECTORY; without it they are shown, then removed
set -eu -o pipefail
cd "$(dirname "$0")/.."
build=$(realpath "${1:-build}")
place=$(mktemp -d "${TMPDIR:-/tmp}/warmpool-example-XXXXXX")
results=${2:-$place/results}
mkdir -p "$results"
results=$(realpath "$results")
agents=${WARMPOOL_EXAMPLE:-$PWD/examples/agents}
wp() { "$build/warmpool" --socket "$place/api.sock" "$@"; }
cleanup() {
    wp down --force >/dev/null 2>&1 || true
    rm -rf "$place"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }
unexpected=0
expect() { # WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then
        echo "  as expected: $what"
    else
        echo "  NOT AS EXPECTED: $what"
        unexpected=$((unexpected + 1))
    fi
}

# task TYPE DIRECTORY FILE COMMAND...: runs the command in a copy of DIRECTORY; FILE, which it makes, lands in $results, what
# else is known of it in $place/TYPE.json.
task() {
    local type=$1 from=$2 file=$3
    shift 3
    wp run "$type" --json --copy-in "$from/.:/workspace" --copy-out "/workspace/$file:$results/$file" -- "$@" \
        >"$place/$type.json" 2>"$place/$type.err" </dev/null || true
    jq -e .outcome "$place/$type.json" >/dev/null 2>&1 || {
        echo "example: $type's task gave no result: $(cat "$place/$type.err")" >&2
        exit 1
    }
}
of() { jq -j "$2" "$place/$1.json"; } # TYPE FILTER

title "the image"
scripts/images.sh example
docker images --format '  {{.Repository}}:{{.Tag}}  {{.Size}}' warmpool-example

title "warmpool up --config examples/agents/warmpool.yaml"
wp up --config "$agents/warmpool.yaml" --set stateDir="$place/state"
instance=$(wp status --json | jq -r .instance)
wp status

sources=$place/sources
mkdir -p "$sources/src"
cp -r src/runner src/tree src/wire "$sources/src/"
cp "$agents/runner.mk" "$sources/Makefile"

title "coder: compiles the runner out of src/runner, src/tree and src/wire"
task coder "$sources" runner make -j2
echo "  $(of coder .output | grep -c '^cc') commands; the last one: $(of coder .output | tail -n 1 | cut -c 1-80) ..."
expect "it compiles" [ "$(of coder .exitCode)" = 0 ]
expect "the runner came back: $(stat -c %s "$results/runner" 2>/dev/null || echo 0) bytes, static" test -x "$results/runner"
version=$("$results/runner" --version 2>&1 || true)
expect "it runs: $version" [ "$version" = "warmpool-runner example" ]

title "tester: runs examples/agents/suite"
task tester "$agents/suite" report.txt python3 -B run.py report.txt
of tester .output | sed 's/^/  /'
expect "the task failed as its one failing test did" [ "$(of tester '[.success, .exitCode] | @tsv')" = "false	1" ]
expect "stderr names it: $(of tester .error | sed -n 's/^FAIL: //p')" \
    [ "$(of tester .error | grep '^FAIL: ' | cut -d ' ' -f 2)" = test_an_apostrophe_stays_inside_its_word ]
expect "the report came back: $(sed -n 's/^\(Ran .*\) in.*/\1/p' "$results/report.txt" 2>/dev/null)" grep -q '^Ran 9 tests' "$results/report.txt"

title "reviewer: reads the same sources with cppcheck"
task reviewer "$sources" review.txt cppcheck --std=c11 --enable=warning,style,performance,portability --inline-suppr --quiet \
    --suppress=missingIncludeSystem --template='{file}:{line}: {severity}: {message}' -D_GNU_SOURCE "-D__$(uname -m)__" -Isrc --output-file=review.txt src
expect "it ends well" [ "$(of reviewer .exitCode)" = 0 ]
expect "the review came back: $(wc -l <"$results/review.txt" 2>/dev/null || echo 0) remarks" test -e "$results/review.txt"
head -n 3 "$results/review.txt" | cut -c 1-110 | sed 's/^/  /'

title "what they took"
{
    echo "task code hit ms cpu_ms memory_MiB"
    for type in coder tester reviewer; do
        of "$type" "[\"$type\", .exitCode, .hit, .duration, .resourcesUsed.cpuTime, ((.resourcesUsed.maxMemory // 0) / 1048576 | floor)] | map(if type == \"number\" then round else . end) | join(\" \") + \"\n\""
    done
} | awk '{ printf "  %-10s %5s %6s %8s %8s %11s\n", $1, $2, $3, $4, $5, $6 }'
[ "$results" = "$place/results" ] || echo "  the files are in $results"

title "warmpool down"
wp down
left() { docker "$@" -q --filter "label=io.warmpool.instance=$instance"; }
expect "nothing is left in the engine" [ -z "$(left ps -a)$(left network ls)$(left volume ls)" ]
expect "nor of the daemon's" [ -z "$(ls -A "$place/state/containers" 2>/dev/null)" ]
[ $unexpected = 0 ] || echo "example: $unexpected things were not as expected" >&2
[ $unexpected = 0 ]
