#!/usr/bin/env bash
# tests/scenarios.sh NAME...: molecule scenarios from nothing to nothing, two at a time; a NAME that is no scenario's is one of make's targets.
# Where tests fail, their words and names come last of all.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$PWD/build"
rm -rf build/reports && mkdir -p build/reports

# shellcheck disable=SC2317  # called below, in a shell of its own
one() {
  if [ -d "molecule/$1" ]; then
    molecule test -s "$1"
  else
    make --no-print-directory "$1" | tee "build/reports/$1.txt"
  fi 2>&1 | sed -u "s/^/$1: /" || { echo "FAILED $1" >>"build/reports/$1.txt"; return 1; }
}
export -f one
printf '%s\n' "$@" | xargs -P 2 -I {} bash -o pipefail -c 'one {}' && exit
for name; do
  report=build/reports/$name.txt
  if grep -qsE '^(FAILED|ERROR) ' "$report"; then
    echo "$name: what failed; the whole of it is in $report:"
    grep -E '^(E  |FAILED|ERROR) ' "$report" | cut -c1-300 | tail -n 40
  fi
done
exit 1
