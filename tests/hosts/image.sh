#!/bin/sh
# Makes a systemd host out of a fresh Debian root ($1); mmdebstrap calls it once all packages are installed.
# PREFETCH: packages whose archives are to lie ready in the image without being installed.
# PACKAGES: folder of a small apt repository to put in, if any.
set -eu
root=$1

# What systemd-nspawn does for its containers: every boot has its own boot id, and of the machine's /proc/sys
# only the network's part (which belongs to the host's own namespace) can be written.
install -m 0755 /dev/stdin "$root/usr/sbin/host-init" <<'INIT'
#!/bin/sh
set -e
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mount -o remount,bind,ro /proc/sys
exec /sbin/init "$@"
INIT

# The machine's kernel takes the place of the kernel package that wireguard-tools recommends; without it
# apt would install a kernel.
kernel=$root/tmp/kernel
mkdir -p "$kernel/DEBIAN"
cat > "$kernel/DEBIAN/control" <<'CONTROL'
Package: host-kernel
Version: 1
Architecture: all
Maintainer: callmetechie.gatecontrol contributors <root@localhost>
Provides: linux-image, wireguard-modules (= 1.0.0)
Description: stands for the kernel of the machine that carries this host
CONTROL
dpkg-deb --build "$kernel" "$root/tmp/host-kernel.deb" >/dev/null
chroot "$root" dpkg --install /tmp/host-kernel.deb >/dev/null
rm -r "$kernel" "$root/tmp/host-kernel.deb"

chroot "$root" useradd --create-home --shell /bin/bash --password '*' ops
install -d -m 0700 "$root/home/ops/.ssh"
chroot "$root" chown ops:ops /home/ops/.ssh
printf 'ops ALL=(ALL) NOPASSWD: ALL\n' > "$root/etc/sudoers.d/ops"
chmod 0440 "$root/etc/sudoers.d/ops"

# Each host gets its own keys and machine id at its start. Background package work would spoil measurements.
rm -f "$root"/etc/ssh/ssh_host_*
: > "$root/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Packages that the suite lacks, in a repository of their own.
if [ -n "${PACKAGES:-}" ]; then
    mkdir "$root/var/lib/host-packages"
    cp "$PACKAGES"/* "$root/var/lib/host-packages"
    echo 'deb [trusted=yes] file:/var/lib/host-packages ./' > "$root/etc/apt/sources.list.d/host-packages.list"
    chroot "$root" apt-get update
fi

chroot "$root" apt-get clean
# shellcheck disable=SC2086
chroot "$root" apt-get --yes --download-only install $PREFETCH
