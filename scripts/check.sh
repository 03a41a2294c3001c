#!/bin/sh
# What needs no engine: layout of the code, import directions, syntax of scripts.
set -eu
cd "$(dirname "$0")/.."
status=0
git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror || status=1
scripts/check-imports.sh || status=1
for script in scripts/*.sh bench/*.sh tests/*.sh tests/*/*.sh .ci/run; do
    [ ! -e "$script" ] || bash -n "$script" || status=1
done
for header in include/warmpool/*.h; do
    gcc -std=c99 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c "$header" || status=1
    g++ -Wall -Wextra -Werror -fsyntax-only -x c++ "$header" || status=1
done
[ $status = 0 ] && echo "check: all is in order"
exit $status
