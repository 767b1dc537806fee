#!/usr/bin/env bash
# One enrollment of a real Mac, for CI's macOS runner: it becomes a peer of the embedded server on loopback, with a real tunnel to a WireGuard
# interface on the same machine, and is retired again. Needs Homebrew's wireguard-tools, sudo without a password, and python with requirements.
set -euo pipefail
cd "$(dirname "$0")/../../.."
[ "$(uname)" = Darwin ] || { echo "this is no Mac: use make scenario NAME=macos_twin" >&2; exit 2; }
url=http://127.0.0.1:8765
network=10.86.9.0/24
folder=$(mktemp -d)
python=$(command -v python)
server() { verb=$1; shift; "$python" tests/gateserver "$verb" --url "$url" "$@"; }
column() { server peer list mac | "$python" -c "import json, sys; print(json.load(sys.stdin)[0]['$1'])"; }

"$python" tests/gateserver serve --port 8765 --era fixed --subnet "$network" --endpoint 127.0.0.1:51820 >"$folder/server.out" &
trap 'kill %1; cat /var/log/gatecontrol.log || true' EXIT
for _ in $(seq 100); do [ -s "$folder/server.out" ] && break; sleep 0.1; done

# The other end of the tunnel.
wg genkey >"$folder/key"
server settings server_key="$(cat "$folder/key")" allowed_ips="$network" >/dev/null
server peer add mac >/dev/null
column preshared_key >"$folder/psk"
sudo wireguard-go utun90
sudo wg set utun90 private-key "$folder/key" listen-port 51820 \
  peer "$(column public_key)" preshared-key "$folder/psk" allowed-ips "$(column allowed_ips)"

# The Mac itself.
"$python" tests/collection.py link
cat >"$folder/site.yml" <<YAML
- hosts: mac
  gather_facts: false
  roles: [callmetechie.gatecontrol.gatecontrol]
YAML
cat >"$folder/inventory.yml" <<YAML
all:
  hosts:
    mac:
      ansible_connection: local
      ansible_python_interpreter: $python
      gatecontrol_url: $url
      gatecontrol_peer_id: $(column id)
      gatecontrol_token: $(server token mac client "$(column id)")
      gatecontrol_dns: []
      gatecontrol_heartbeat_interval: 20
YAML
export ANSIBLE_COLLECTIONS_PATH=$PWD/build
play() { "$python" -m ansible playbook -i "$folder/inventory.yml" "$folder/site.yml" "$@" | tee "$folder/play.out"; }
play --check --diff
play --diff
sudo wg show
sudo /usr/local/sbin/gatecontrol-agent show
play
grep -q 'changed=0 ' "$folder/play.out"
plutil -lint /Library/LaunchDaemons/com.callmetechie.gatecontrol-*.plist
sudo newsyslog -nv -f /etc/newsyslog.d/gatecontrol.conf

# The job of the beat, of the tunnel, and a change by the play.
mark=$(server log --event heartbeat | grep -c '"id"')
for _ in $(seq 60); do [ "$(server log --event heartbeat | grep -c '"id"')" -gt "$((mark + 1))" ] && break; sleep 1; done
[ "$(server log --event heartbeat | grep -c '"id"')" -gt "$((mark + 1))" ]
sudo wg-quick down wg0
for _ in $(seq 60); do [ -e /var/run/wireguard/wg0.name ] && break; sleep 1; done
[ -e /var/run/wireguard/wg0.name ]
server settings mtu=1380 >/dev/null
play --diff
ifconfig "$(sudo cat /var/run/wireguard/wg0.name)" | grep 'mtu 1380'

play -e gatecontrol_state=absent
if sudo launchctl list | grep callmetechie; then exit 1; fi
[ ! -e /etc/gatecontrol ] && [ ! -e /var/run/wireguard/wg0.name ]
