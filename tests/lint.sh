#!/usr/bin/env bash
# What a reader of the collection and Galaxy would say: ansible-lint (production), documentation, changelog, galaxy-importer.
# Runs over a copy of the checkout that is laid out as a collection.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
place=$("$bin/python" tests/collection.py copy "$root")
export PATH="$bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$root" ANSIBLE_HOME="$root/.ansible"
cd "$place"

echo "lint: yamllint"
yamllint --strict .

echo "lint: ansible-lint"
ansible-lint --offline --profile production --nocolor -q

echo "lint: antsibull-docs"
antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .

echo "lint: antsibull-changelog"
antsibull-changelog lint

echo "lint: ansible-builder"
ansible-builder introspect "$root" >"$root/introspected"
grep -q '# from collection callmetechie.gatecontrol' "$root/introspected"
ansible-builder create --file docs/examples/execution-environment.yml --context "$root/ee" >/dev/null

echo "lint: galaxy-importer"
ansible-galaxy collection build --force --output-path "$root" >/dev/null
said=$(cd "$root" && python -m galaxy_importer.main callmetechie-gatecontrol-*.tar.gz 2>&1) || { printf '%s\n' "$said"; exit 1; }
if printf '%s\n' "$said" | grep -E '(ERROR|WARNING)'; then
  echo "lint: galaxy-importer has something to say"
  exit 1
fi
echo "lint: clean"
