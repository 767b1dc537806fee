#!/bin/sh
# Stand-in for Homebrew: refuses root, and installs the formulae of WireGuard from the Debian archives that lie in the host's image.
set -eu
prefix=$(dirname "$(dirname "$(readlink -f "$0")")")
if [ "$(id -u)" = 0 ]; then
    echo "Error: Running Homebrew as root is extremely dangerous and no longer supported." >&2
    exit 1
fi
if [ "${1:-}" = --prefix ]; then
    echo "$prefix"
    exit 0
fi
if [ "${1:-}" != install ]; then
    echo "Error: Unknown command: ${1:-}" >&2
    exit 1
fi
shift
formulae=
for word in "$@"; do
    case $word in
        --quiet) ;;
        wireguard-tools) formulae="$formulae wireguard-go wireguard-tools" ;; # which needs the other
        wireguard-go) formulae="$formulae wireguard-go" ;;
        *) echo "Warning: No available formula with the name \"$word\"." >&2; exit 1 ;;
    esac
done
for formula in $formulae; do
    cellar=$prefix/Cellar/$formula
    if [ -d "$cellar" ]; then continue; fi
    dpkg-deb --extract /var/cache/apt/archives/"$formula"_*.deb "$cellar"
    if [ "$formula" = wireguard-tools ]; then
        ln -s "$cellar/usr/bin/wg" "$prefix/bin/wg"
        install -m 0755 /usr/lib/macos-twin/wg-quick.py "$prefix/bin/wg-quick"
    else
        ln -s "$cellar/usr/bin/wireguard-go" "$prefix/bin/wireguard-go"
    fi
    echo "$cellar: done"
done
