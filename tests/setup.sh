#!/usr/bin/env bash
# Makes .venv and installs what the demo and the tests need: Debian packages (as root, where apt is there) and Python packages.
# Says what it does, and what is missing where it cannot do it. Runs again in a second when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

# Debian packages: hosts are podman containers made with mmdebstrap; tunnels are real.
packages=(podman runc mmdebstrap debian-archive-keyring patchelf iptables wireguard-tools wireguard-go nftables iproute2 iputils-ping procps shellcheck openssh-client openssl ca-certificates git sudo rsync xz-utils libcap2-bin libplist-utils dnsmasq-base)
missing() { for p in "$@"; do dpkg-query -W -f='${Status}\n' "$p" 2>/dev/null | grep -q '^install ok installed$' || printf '%s ' "$p"; done; }
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
  want=$(missing "${packages[@]}")
  if [ -n "$want" ]; then
    if [ "$(id -u)" = 0 ]; then
      say "apt-get install $want"
      apt-get update -qq
      # shellcheck disable=SC2086
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $want >build-apt.log 2>&1 || { tail -n 20 build-apt.log; rm -f build-apt.log; exit 1; }
      rm -f build-apt.log
    else
      say "missing Debian packages: $want- unit tests and linters run without them; hosts and tunnels need them and root (sudo apt-get install $want)"
    fi
  fi
else
  say "no apt here: hosts and tunnels need podman, runc, mmdebstrap, wireguard-tools, wireguard-go, nftables, iproute2 and procps, installed by hand"
fi

# The newest interpreter that runs and that ansible-core supports: 3.12 to 3.14 for 2.21, else 3.11 for 2.19.
pick_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.14 python3.13 python3.12 \
      "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.14*/bin/python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python \
      "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python python3 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
}
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  python=$(pick_python)
  if [ -z "$python" ]; then
    say "no Python from 3.11 to 3.14 was found: install one, or name it with PYTHON=..."
    exit 1
  fi
  say "making .venv with $("$python" -V)"
  rm -rf .venv
  if ! "$python" -m venv .venv >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "apt-get install python3-venv"
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
      rm -rf .venv
      "$python" -m venv .venv
    else
      say "'$python -m venv' fails: install python3-venv"
      exit 1
    fi
  fi
fi
stamp=.venv/requirements.stamp
if ! cmp -s tests/requirements.txt "$stamp"; then
  say "installing Python packages (tests/requirements.txt)"
  .venv/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements.txt 2>&1 | { grep -v '^WARNING: Location' || true; }
  .venv/bin/python -m pip check >/dev/null || { .venv/bin/python -m pip check; exit 1; }
  cp tests/requirements.txt "$stamp"
fi
.venv/bin/python tests/collection.py link
.venv/bin/python tests/twins/windows/lay.py fetch
.venv/bin/python tests/twins/windows/lay.py >/dev/null
say "ready: $(.venv/bin/ansible --version | head -n 1) on $(.venv/bin/python -V)"
