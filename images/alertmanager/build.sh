#!/usr/bin/env bash
# Everything is Debian's, so security fixes come with a new build and not with a new version of ours.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

here=$(cd "$(dirname "$0")" && pwd)

customize() {
  local root=$1 found
  found=$(chroot "$root" dpkg-query --show prometheus-alertmanager | cut -f2)
  if [[ ${found#*:} != "$VERSION".* ]]; then
    echo "prometheus-alertmanager: found $found, wanted $VERSION; alertmanager_version in group_vars/all/versions.yml says which" >&2
    exit 1
  fi
  # Volumes that ignore fsGroup keep what this number wrote, whatever number the package picks.
  sed -i 's/^prometheus:x:[0-9]*:[0-9]*:/prometheus:x:10006:10006:/' "$root/etc/passwd"
  sed -i 's/^prometheus:x:[0-9]*:/prometheus:x:10006:/' "$root/etc/group"
  # Nothing changes its user here, so nothing may offer to.
  find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +
  rm -rf "$root"/etc/prometheus/* "$root"/var/lib/prometheus "$root"/var/cache/debconf/*
  : >"$root/etc/machine-id"
}

if [[ ${1:-} == customize ]]; then
  customize "$2"
  exit
fi

debian_rootfs "$DEBIAN_SUITE" ./rootfs.tar prometheus-alertmanager,ca-certificates --customize-hook="bash $here/build.sh customize \"\$1\""

oci_image alertmanager.tar.zst "slipway.local/alertmanager:$VERSION" rootfs.tar --user 10006:10006 --workdir /data \
  --env PATH=/usr/bin:/bin --env LANG=C.UTF-8 --entrypoint '["/usr/bin/prometheus-alertmanager"]' --port 9093
