#!/usr/bin/env bash
# tests/scenario.sh NAME: one molecule scenario from nothing to nothing. Where a test fails, its own words come last, after all that molecule says.
set -uo pipefail
cd "$(dirname "$0")/.."
report=build/reports/$1.txt
rm -f "$report"
molecule test -s "$1"
status=$?
if [ "$status" != 0 ] && [ -f "$report" ]; then
  echo "scenario $1: what failed, from $report:"
  sed -n '/ short test summary info /,$p' "$report" | tail -n 40
fi
exit "$status"
