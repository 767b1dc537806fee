#!/usr/bin/env bash
# tests/scenarios.sh NAME...: molecule scenarios from nothing to nothing, two at a time; "integration" is those tests in place of a scenario.
# Where tests fail, their words and names come last of all.
set -uo pipefail
: "${1:?name a scenario, such as default}"
cd "$(dirname "$0")/.." || exit
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$PWD/build"
mkdir -p build/reports
for name; do rm -f "build/reports/$name.txt"; done

# shellcheck disable=SC2317  # called below, in a shell of its own
one() {
  if [ "$1" = integration ]; then  # the setup was done, and would lay out anew what a scenario plays from
    make --no-print-directory --old-file=setup integration 2>&1 | tee build/reports/integration.txt
  else
    molecule test -s "$1"
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
