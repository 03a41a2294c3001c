#!/bin/bash
# Runs every suite, each though an earlier one failed, and ends with `N passed, N failed` over all of them. A suite that says
# nothing countable, or fails without a failed test, counts as one failure.
#
#     scripts/test.sh BUILD [SUITE...]
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=$(realpath "${1:-build}")
shift
export BUILD
logs=$BUILD/test-logs
mkdir -p "$logs"
passed=0 failed=0 summary=()
only=("$@")

wanted() {
    [ ${#only[@]} = 0 ] && return 0
    local name
    for name in "${only[@]}"; do [[ $1 == "$name"* ]] && return 0; done
    return 1
}

# suite NAME COMMAND...: the command prints TAP, or what cmocka prints.
suite() {
    wanted "$1" || return 0
    run "$@"
    report "$1"
}

# The same beside the others, for suites that mostly wait; `beside_end` reports them.
beside=()
suite_beside() {
    wanted "$1" || return 0
    run "$@" &
    beside+=("$1" $!)
}
beside_end() {
    local at
    for ((at = 0; at < ${#beside[@]}; at += 2)); do
        wait "${beside[at + 1]}"
        report "${beside[at]}"
    done
    beside=()
}

run() {
    local log=$logs/${1//\//-}.log begun=$SECONDS
    shift
    timeout --kill-after=10 900 "$@" >"$log" 2>&1 </dev/null
    echo $? $((SECONDS - begun)) >"$log.end"
}

report() {
    local name=$1 log=$logs/${1//\//-}.log code took ok bad
    read -r code took <"$log.end"
    ok=$(grep -cE '^ok |^\[ +OK \]' "$log")
    bad=$(grep -cE '^not ok |^\[  FAILED  \] [a-z_A-Z0-9]+$' "$log")
    # cmocka lists failed tests twice: where they fail and at the end.
    if grep -q '^\[==========\] Running' "$log"; then
        bad=$(grep -E '^\[  FAILED  \] [a-z_A-Z0-9]+$' "$log" | sort -u | wc -l)
    fi
    if [ "$bad" = 0 ] && { [ "$code" != 0 ] || [ "$ok" = 0 ]; }; then bad=1; fi
    passed=$((passed + ok)) failed=$((failed + bad))
    printf '%-34s %4d passed %4d failed %4d s\n' "$name" "$ok" "$bad" "$took"
    if [ "$bad" != 0 ]; then
        summary+=("$name")
        grep -E '^not ok|FAILED|error|Error' "$log" | head -20
        echo "--- the end of $log:"
        tail -n 30 "$log"
    fi
}

suite imports tests/imports.sh
suite keys tests/keys.sh
for program in "$BUILD"/tests/unit/test_*; do
    [ -x "$program" ] && [ -f "$program" ] && suite "unit/$(basename "$program")" "$program"
done
if [ -x "$BUILD/tests/sim/sim" ]; then
    suite sim/check "$BUILD/tests/sim/sim" check
    suite sim/costs "$BUILD/tests/sim/sim" costs
fi
for program in "$BUILD"/tests/engine/*; do
    [ -x "$program" ] && [ -f "$program" ] && suite "engine/$(basename "$program")" "$program"
done
fuzz_seed=1 # the same each time; with SOAK another one
[ -z "${SOAK:-}" ] || fuzz_seed=0
# A moment of mutated texts; for longer: build/tests/fuzz/fuzz-config 600 0 tests/fuzz/config/*
[ -x "$BUILD/tests/fuzz/fuzz-config" ] && suite fuzz/config "$BUILD/tests/fuzz/fuzz-config" 10 "$fuzz_seed" tests/fuzz/config/*
export WARMPOOL_RUNNER=$BUILD/src/runner/warmpool-runner
[ -x "$BUILD/tests/runner/test_runner" ] && suite runner/test_runner "$BUILD/tests/runner/test_runner"
rounds=1
[ -z "${SOAK:-}" ] || rounds=20 # what goes wrong once in a while has its chance
for ((round = 1; round <= rounds; round++)); do
    for name in double registry; do # engines and registries that hang
        suite_beside "integration/$name.bats" bats --tap "tests/integration/$name.bats"
    done
    for file in tests/integration/*.bats tests/security/*.bats; do
        case $file in */double.bats | */registry.bats) continue ;; esac
        [ -e "$file" ] && suite "${file#tests/}" bats --tap "$file"
    done
    beside_end
    # What has to hold whichever way the runners are reached.
    for file in api bytes cli copies exits files hardening images leases pool reset terminal trouble; do
        file=tests/integration/$file.bats
        [ -e "$file" ] && suite "attach/${file#tests/}" env TRANSPORT=attach bats --tap "$file"
    done
    suite attach/security/armour.bats env TRANSPORT=attach bats --tap tests/security/armour.bats
done

[ ${#summary[@]} = 0 ] || echo "failed: ${summary[*]}"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
