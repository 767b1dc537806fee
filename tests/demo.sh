#!/usr/bin/env bash
# make demo: three hosts, a server, their tunnels. make demo-stop: takes it all away. What the steps said in full is in build/demo.log.
set -euo pipefail
cd "$(dirname "$0")/.."

run=demo
folder=build/hosts/$run
log=build/demo.log
hosts=(web1:bullseye web2:bookworm db1:trixie)
names=("${hosts[@]%%:*}")
network=10.86.250.0/24
gateway=10.86.250.1
python=.venv/bin/python

if [ "${1:-}" = stop ]; then
  "$python" tests/hosts down "$run"
  echo "The demo is gone: hosts, server, network and $folder."
  exit
fi

begun=$SECONDS
mkdir -p build
: >"$log"
bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
indent() { sed 's/^/    /'; }
failed() {
  printf '\nThe demo stopped here; the end of %s:\n' "$log"
  tail -n 25 "$log" | indent
  printf '\nTake away what is there: make demo-stop\n'
}
trap failed ERR
server() { verb=$1; shift; "$python" tests/gateserver "$verb" --url "$url" "$@"; }
on() { "$python" tests/hosts exec "$run" "$@"; }

step "1. Three machines: Debian 11, 12 and 13 with systemd and SSH (their images are built once, from Debian's packages)"
"$python" tests/hosts up "$run" --server --hosts "${hosts[@]}" 2>&1 | tee -a "$log" | indent
"$python" tests/hosts ca "$run" >>"$log" 2>&1
read -r address netns < <("$python" -c "import json; server = json.load(open('$folder/run.json'))['server']; print(server['address'], server['netns'])")
url=https://$address:8443

step "2. A GateControl server, release 1.118.2, with a real WireGuard hub (embedded: a stand-in made for tests)"
setsid --fork ip netns exec "$netns" "$python" tests/gateserver serve --host "$address" --port 8443 --era 1.118.2 \
  --tls "$folder/tls/server.pem" "$folder/tls/server.key" --wireguard gwdemo --subnet "$network" --endpoint "$address:51820" --echo 7 \
  >"$folder/server.out" 2>>"$log" </dev/null
for _ in $(seq 100); do [ -s "$folder/server.out" ] && break; sleep 0.1; done
server settings allowed_ips="$network" >>"$log"
echo "    $url, tunnel network $network"

mkdir -p "$folder/group_vars"
cat >"$folder/group_vars/all.yml" <<YAML
gatecontrol_url: $url
gatecontrol_ca_path: /etc/ssl/gatecontrol-demo-ca.pem
gatecontrol_controller_ca_path: $PWD/$folder/tls/ca.pem
gatecontrol_dns: []
gatecontrol_heartbeat_interval: 20
gatecontrol_sync_interval: 20
YAML
cat >"$folder/ansible.cfg" <<CFG
[defaults]
inventory = $PWD/$folder/inventory.yml
collections_path = $PWD/build
forks = 20
gathering = explicit
display_skipped_hosts = false
callback_result_format = yaml
[ssh_connection]
pipelining = true
CFG
"$python" - "$folder" >"$folder/ssh_config" <<'PY'
import json, os, sys
folder = os.path.abspath(sys.argv[1])
for name, host in json.load(open(folder + "/run.json"))["hosts"].items():
    print("Host %s\n  HostName %s\n  User ops\n  IdentityFile %s/id_ed25519\n  UserKnownHostsFile %s/known_hosts\n  StrictHostKeyChecking yes\n"
          % (name, host["address"], folder, folder))
PY
export ANSIBLE_CONFIG=$folder/ansible.cfg GATECONTROL_ADMIN_USER=admin GATECONTROL_ADMIN_PASSWORD='LoopbackTest123!'

play() {  # an ansible-playbook run: the names of its tasks as they come, and what Ansible counted
  local start=$SECONDS
  .venv/bin/ansible-playbook tests/demo.yml "$@" 2>&1 | tee -a "$log" |
    sed -un -e '/^TASK.*\(Enroll\|Validating arguments.*\)\]/d' -e 's/^TASK \[\(.* : \)\?\([^]]*\)\].*/    \2/p' -e 's/^\([a-z0-9]* *: ok=.*failed=[0-9]*\).*/    \1/p' -e '/^fatal/p' | cut -c1-140
  echo "    took $((SECONDS - start)) s"
}

step "3. The play: installs WireGuard and the agent, has a peer on the server for each host, runs and proves the tunnel"
play

step "4. The tunnel on ${names[0]}, after 1 MiB went to $gateway and back"
on "${names[0]}" -- python3 -c "
import socket, time
begin, connection = time.time(), socket.create_connection(('$gateway', 7), 20)
connection.settimeout(60)
data = bytes(65536)
for _ in range(16):
    connection.sendall(data)
    left = len(data)
    while left:
        left -= len(connection.recv(left)) or exit('the connection broke')
print('1 MiB there and back in %.1f s' % (time.time() - begin))" 2>>"$log" | indent
on "${names[0]}" -- wg show wg0 | indent
echo
on "${names[0]}" -- gatecontrol-agent show | indent

step "5. What the server sees"
server peer list | "$python" -c "
import json, sys, time
print('%-6s %-14s %-8s %-14s %10s %10s' % ('peer', 'address', 'enabled', 'handshake', 'received', 'sent'))
for peer in json.load(sys.stdin):
    seen = peer['latest_handshake']
    print('%-6s %-14s %-8s %-14s %10d %10d' % (peer['name'], peer['allowed_ips'].split('/')[0], 'yes' if peer['enabled'] else 'no',
                                               '%d s ago' % (time.time() - seen) if seen else 'never', peer['transfer_rx'], peer['transfer_tx']))" | indent

step "6. The same play again: one request a host, nothing to change"
play -e demo_copy_ca=false

step "7. The report on the fleet, from its hosts and its server"
.venv/bin/ansible-playbook playbooks/report.yml -e gatecontrol_report_dir="$PWD/$folder" 2>&1 | tee -a "$log" | sed -n "/msg:$/,/^$/s/^ *- '\?\([^']*\)'\?$/\1/p" | indent
echo "    The same as a page, to be opened in a browser: $PWD/$folder/gatecontrol-report.html"

step "It runs ($((SECONDS - begun)) s). Look around:"
cat <<TEXT | indent
log in                  ssh -F $folder/ssh_config ${names[0]}
a host's state          ssh -F $folder/ssh_config ${names[0]} sudo gatecontrol-agent show
its beats               ssh -F $folder/ssh_config ${names[0]} sudo journalctl -u gatecontrol-beat -f
the server's log        $python tests/gateserver log --url $url --event heartbeat --limit 3

Change a setting on the server; every host has it within 20 seconds, without a play:
  $python tests/gateserver settings --url $url mtu=1380
  ssh -F $folder/ssh_config ${names[0]} ip link show wg0
Break something, and let the play say what it would do and then do it:
  ssh -F $folder/ssh_config ${names[1]} sudo rm /etc/wireguard/wg0.conf
  ANSIBLE_CONFIG=$folder/ansible.cfg .venv/bin/ansible-playbook tests/demo.yml --check --diff
  ANSIBLE_CONFIG=$folder/ansible.cfg .venv/bin/ansible-playbook tests/demo.yml

Stop                    make demo-stop
TEXT
