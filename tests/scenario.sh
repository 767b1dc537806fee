#!/usr/bin/env bash
# tests/scenario.sh NAME: one molecule scenario from nothing to nothing. Where tests fail, their names and words come last, after all that molecule says.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$PWD/build"
report=build/reports/$1.txt
rm -f "$report"
molecule test -s "$1"
status=$?
if [ "$status" != 0 ] && grep -qsE '^(FAILED|ERROR) ' "$report"; then
  echo "scenario $1: what failed; the whole of it is in $report:"
  grep -E '^(E  |FAILED|ERROR) ' "$report" | cut -c1-300 | tail -n 40
fi
exit "$status"
