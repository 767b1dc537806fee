#!/bin/sh
# Makes a Debian host of tests/hosts stand in for a Mac with Homebrew; $1: the user Homebrew belongs to. Run as root from this folder.
set -eu
owner=$1
echo "This is no macOS: $(hostname) now stands in for one, for tests. See tests/twins/macos/README.md."
install -d /usr/lib/macos-twin /Library/LaunchDaemons /var/db /etc/newsyslog.d /System/Library/CoreServices
for name in launchd.py network.py wg-quick.py; do
    { echo '#!/usr/bin/python3'; cat $name; } > /usr/lib/macos-twin/$name
    chmod 0755 /usr/lib/macos-twin/$name
done

# What macOS has.
ln -sf /usr/lib/macos-twin/launchd.py /usr/lib/macos-twin/launchd
ln -sf /usr/lib/macos-twin/launchd.py /bin/launchctl
for name in ifconfig route networksetup; do ln -sf /usr/lib/macos-twin/network.py /usr/sbin/$name; done
cat > /System/Library/CoreServices/SystemVersion.plist <<'PLIST'
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>ProductName</key>
	<string>macOS</string>
	<key>ProductVersion</key>
	<string>14.0</string>
</dict>
</plist>
PLIST
install -m 0755 /dev/stdin /usr/bin/sw_vers <<'TOOL'
#!/usr/bin/python3
import plistlib, sys
known = plistlib.load(open("/System/Library/CoreServices/SystemVersion.plist", "rb"))
print(known["ProductVersion"] if sys.argv[1:] == ["-productVersion"] else "".join("%s:\t%s\n" % one for one in known.items()), end="")
TOOL
install -m 0755 /dev/stdin /usr/bin/plutil <<'TOOL'
#!/usr/bin/python3
import plistlib, sys
assert sys.argv[1] == "-lint"
for path in sys.argv[2:]:
    try:
        plistlib.load(open(path, "rb"))
    except Exception as error:
        sys.exit("%s: %s" % (path, error))
    print("%s: OK" % path)
TOOL
install -m 0755 /dev/stdin /usr/sbin/ioreg <<TOOL
#!/bin/sh
[ "\$*" = "-rd1 -c IOPlatformExpertDevice" ] || exit 1
echo '+-o J314sAP  <class IOPlatformExpertDevice, id 0x100000227, registered, matched, active>'
echo '    {'
echo '      "IOPlatformUUID" = "$(tr a-f A-F < /proc/sys/kernel/random/uuid)"'
echo '    }'
TOOL

# Homebrew, in the user's own prefix.
id "$owner" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$owner"
install -d -o "$owner" /opt/homebrew /opt/homebrew/bin /opt/homebrew/Cellar
install -o "$owner" -m 0755 brew.sh /opt/homebrew/bin/brew

# What Linux has and a Mac has not: the agent's PATH finds these first, and a scenario looks whether it tried.
for name in ip systemctl timeout resolvconf nft journalctl; do
    install -m 0755 /dev/stdin /opt/homebrew/bin/$name <<TOOL
#!/bin/sh
echo "$name \$*" >> /var/log/used-of-linux.log
echo "$name: command not found" >&2
exit 127
TOOL
done

cat > /etc/systemd/system/launchd-twin.service <<'UNIT'
[Unit]
Description=Stand-in for launchd of macOS
Before=ssh.service

[Service]
ExecStart=/usr/lib/macos-twin/launchd
KillMode=process

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet --now launchd-twin.service
for _ in $(seq 50); do
    if launchctl list >/dev/null 2>&1; then exit 0; fi
    sleep 0.1
done
exit 1
