#!/usr/bin/env bash
# ansible-test sanity over a copy of the checkout, laid out as ansible-test wants it; without containers.
#   sanity.sh        with the ansible-core of .venv
#   sanity.sh all    with every ansible-core the collection supports whose Python is there, each in an environment of its own
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

run() {  # bin directory of an environment
  local bin=$1 version python place pips
  version=$("$bin/ansible" --version | sed -n '1s/.*core \([^]]*\).*/\1/p')
  python=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  place=$("$bin/python" tests/collection.py copy "build/sanity-$version")
  # ansible-test fetches pip for its own environments from a place that may be out of reach; Python brings one along.
  pips=$("$bin/python" -c '
import ansible_test, pathlib, re
folder = pathlib.Path(ansible_test.__file__).parent
text = "".join(path.read_text() for path in sorted(folder.glob("_internal/*.py")) + sorted(folder.glob("_util/target/setup/*.py")))
print(*sorted(set(re.findall(r"[\x27\x22](2[0-9]\.[0-9.]+)[\x27\x22]", text)) | {"25.2", "24.0"}))')
  mkdir -p ~/.ansible/test/cache
  for pip in $pips; do
    local file=~/.ansible/test/cache/get_pip_${pip//./_}.py
    [ -e "$file" ] || printf 'import ensurepip\nensurepip.bootstrap(upgrade=True, default_pip=True)\n' >"$file"
  done
  echo "sanity: ansible-core $version on Python $python"
  (cd "$place" && PATH="$bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$root/build/sanity-$version" ansible-test sanity --local --python "$python" --color no)
  rm -rf "build/sanity-$version"
}

if [ "${1:-}" != all ]; then
  run "$root/.venv/bin"
  exit
fi

# ansible-core and the Python its controller runs on; the last is a pre-release and only noted.
missing=0
while read -r core python; do
  found=
  for candidate in "python$python" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$python"*/bin/python; do
    if "$candidate" -c 'import sys' >/dev/null 2>&1; then found=$candidate; break; fi
  done
  if [ -z "$found" ]; then
    echo "sanity: NOT RUN: ansible-core $core needs Python $python, which is not on this machine"
    missing=$((missing + 1))
    continue
  fi
  environment=build/core-$core
  if [ ! -x "$environment/bin/ansible-test" ]; then
    "$found" -m venv "$environment"
    "$environment/bin/python" -m pip install -q --disable-pip-version-check --pre "ansible-core==$core"
  fi
  case $core in
    *rc*|*b*) run "$root/$environment/bin" || echo "sanity: NOTED: the pre-release $core finds the above" ;;
    *) run "$root/$environment/bin" ;;
  esac
done <<'CORES'
2.19.14 3.11
2.20.10 3.12
2.21.5 3.13
2.22.0rc1 3.13
CORES
echo "sanity: done, $missing not run"
