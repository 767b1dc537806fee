#!/bin/sh
# Makes a virtual machine's root out of a fresh Debian root ($1); mmdebstrap calls it once all packages are installed.
set -eu
root=$1

chroot "$root" useradd --create-home --shell /bin/bash --password '*' ops
install -d -m 0700 "$root/home/ops/.ssh"
chroot "$root" chown ops:ops /home/ops/.ssh
printf 'ops ALL=(ALL) NOPASSWD: ALL\n' > "$root/etc/sudoers.d/ops"
chmod 0440 "$root/etc/sudoers.d/ops"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
: > "$root/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service dev-hugepages.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Debian's many profiles take AppArmor half a minute under software emulation; those of wg and wg-quick are what is asked of here.
find "$root/etc/apparmor.d" -maxdepth 1 -type f -delete

# What is this machine's own lies as an archive on a second disk.
install -m 0755 /dev/stdin "$root/usr/local/sbin/host-seed" <<'SEED'
#!/bin/sh
tar -xf /dev/vdb -C / --no-overwrite-dir && touch /etc/host-seeded
SEED
cat > "$root/etc/systemd/system/host-seed.service" <<'UNIT'
[Unit]
Description=Take what is this machine's own
DefaultDependencies=no
ConditionPathExists=!/etc/host-seeded
After=systemd-remount-fs.service
Before=sysinit.target systemd-networkd.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/host-seed
[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl enable --quiet host-seed.service systemd-networkd.service ssh.service
chroot "$root" systemctl disable --quiet systemd-networkd-wait-online.service chrony.service 2>/dev/null || true
