# `make example`, and that it can fail.
load helper

setup() { RESULTS=$(mktemp -d "${TMPDIR:-/tmp}/wp-test-XXXXXX"); }
teardown() { rm -rf "$RESULTS"; }

@test "the example: coder compiles, tester's task fails with its test, reviewer reads; the files come back" {
    run -0 "$ROOT/scripts/example.sh" "$BUILD" "$RESULTS"
    [[ $output != *'NOT AS EXPECTED'* ]]
    [ "$(grep -c 'as expected' <<<"$output")" = 10 ]
    run -0 "$RESULTS/runner" --version
    grep -q '^FAIL: test_an_apostrophe' "$RESULTS/report.txt"
    grep -q 'src/' "$RESULTS/review.txt"
}

@test "the example ends with 1 when the failing test passes" {
    cp -r "$ROOT/examples/agents" "$RESULTS/agents"
    sed -i "s/\[a-z\]+/[a-z']+/" "$RESULTS/agents/suite/textstats.py"
    WARMPOOL_EXAMPLE=$RESULTS/agents run -1 "$ROOT/scripts/example.sh" "$BUILD" "$RESULTS"
    [[ $output == *'NOT AS EXPECTED: the task failed'* ]]
    [[ $output == *'as expected: nothing is left in the engine'* ]]
}
