#!/usr/bin/env bash
# A lab host: what the Debian installer leaves behind on a small server, plus runc (a real k3s brings its own;
# the stand-in takes Debian's) and the packages that kubelet and kube-proxy call.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

packages=systemd,systemd-sysv,systemd-timesyncd,dbus,python3,python3-apt,openssh-server,sudo,ca-certificates
packages+=,iproute2,iptables,nftables,conntrack,ipset,ethtool,socat,kmod,mount,util-linux,procps,netbase,iputils-ping,curl
packages+=,runc

customize() {
  local root=$1
  chroot "$root" useradd --create-home --shell /bin/bash ops
  install -d -m 0700 "$root/home/ops/.ssh"
  chroot "$root" chown -R ops:ops /home/ops
  printf 'ops ALL=(ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/ops"
  chmod 0440 "$root/etc/sudoers.d/ops"
  # Every host makes host keys of its own at its first start; keys in an image are nobody's keys.
  rm -f "$root"/etc/ssh/ssh_host_*
  install -d "$root/etc/systemd/system/ssh.service.d"
  printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' \
    >"$root/etc/systemd/system/ssh.service.d/host-keys.conf"
  # The lab's clock is the machine's, and no timer of the hosts' own may hold apt's lock while a play installs packages.
  local unit
  for unit in systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
  : >"$root/etc/machine-id"
}

if [[ ${1:-} == customize ]]; then
  customize "$2"
  exit
fi
debian_rootfs "$VERSION" "$OUT/node-image.tar" "$packages" --customize-hook="$0 customize \"\$1\""
