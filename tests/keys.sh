#!/bin/bash
# Every key of the option table has a test that observes its effect: tests/integration/KEYS says which, and this holds the list against
# table and tests. TAP.
#
#     tests/keys.sh [TABLE [LIST]]
set -u
cd "$(dirname "$0")/.." || exit 1
table=${1:-src/config/options.def}
list=${2:-tests/integration/KEYS}
number=0 failed=0

report() { # PROBLEM NAME
    number=$((number + 1))
    if [ -z "$1" ]; then
        echo "ok $number - $2"
    else
        echo "not ok $number - $2: $1"
        failed=1
    fi
}

# What is wrong with the list's line for a key; nothing when all is well.
problem_of() {
    local key=$1 file words title
    read -r _ file words < <(grep "^$key " "$list") || { echo "is not in $list"; return; }
    [ -e "tests/$file" ] || { echo "tests/$file is not there"; return; }
    [ -n "$words" ] || { echo "names no test"; return; }
    title=$(grep '^@test ' "tests/$file" | grep -F -- "$words" | head -n 1)
    [ -n "$title" ] || { echo "tests/$file has no test \"$words\""; return; }
    grep -v '^@test ' "tests/$file" | grep -v '^ *#' | grep -qw -- "$key" || echo "tests/$file does not set it"
}

keys=$(sed -n 's/^OPTION(\([A-Za-z]*\),.*/\1/p' "$table")
for key in $keys; do report "$(problem_of "$key")" "$key"; done
known=$(grep -v '^#' "$list" | awk '{print $1}' | sort)
report "$(comm -23 <(echo "$known") <(sort <<<"$keys") | xargs)" "no key in the list that is none"
report "$(uniq -d <<<"$known" | xargs)" "no key twice"
if [ $# = 0 ]; then # The check sees a key without a test.
    copy=$(mktemp)
    { cat "$table" && echo 'OPTION(unobserved, POOL, NOW, UINT, unobserved, "1", 0, 1, "")'; } >"$copy"
    if "$0" "$copy" | grep -q '^not ok .* unobserved: is not in'; then report "" "finds a key without a test"; else report "no" "finds a key without a test"; fi
    rm -f "$copy"
fi
echo "1..$number"
exit $failed
