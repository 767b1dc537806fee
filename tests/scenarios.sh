#!/usr/bin/env bash
# tests/scenarios.sh NAME...: molecule scenarios from nothing to nothing, two at a time. Where tests fail, their words and names come last of all.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$PWD/build"
rm -rf build/reports && mkdir -p build/reports
one='set -o pipefail; molecule test -s {} 2>&1 | sed -u "s/^/{}: /" || { echo "FAILED scenario {}" >>build/reports/{}.txt; exit 1; }'
printf '%s\n' "$@" | xargs -P 2 -I {} bash -c "$one" && exit
for name; do
  report=build/reports/$name.txt
  if grep -qsE '^(FAILED|ERROR) ' "$report"; then
    echo "scenario $name: what failed; the whole of it is in $report:"
    grep -E '^(E  |FAILED|ERROR) ' "$report" | cut -c1-300 | tail -n 40
  fi
done
exit 1
