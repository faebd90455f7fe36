#!/usr/bin/env bash
# Everything is Debian's, so security fixes come with a new build and not with a new version of ours.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

here=$(cd "$(dirname "$0")" && pwd)

wanted() {
  local root=$1 package=$2 variable=$3 expected=$4 found
  found=$(chroot "$root" dpkg-query --show "$package" | cut -f2)
  if [[ ${found#*:} != "$expected".* ]]; then
    echo "$package: found $found, wanted $expected; $variable in group_vars/all/versions.yml says which" >&2
    exit 1
  fi
}

customize() {
  local root=$1
  wanted "$root" prometheus prometheus_version "$VERSION"
  wanted "$root" prometheus-node-exporter node_exporter_version "$NODE_EXPORTER_VERSION"
  wanted "$root" prometheus-blackbox-exporter blackbox_exporter_version "$BLACKBOX_EXPORTER_VERSION"
  # Volumes that ignore fsGroup keep what this number wrote, whatever number the package picks.
  sed -i 's/^prometheus:x:[0-9]*:[0-9]*:/prometheus:x:10005:10005:/' "$root/etc/passwd"
  sed -i 's/^prometheus:x:[0-9]*:/prometheus:x:10005:/' "$root/etc/group"
  # Nothing changes its user here, so nothing may offer to.
  find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +
  rm -rf "$root"/etc/prometheus/* "$root"/var/lib/prometheus "$root"/var/cache/debconf/*
  install -D -m 0644 -t "$root/usr/local/lib/prometheus" "$here"/scripts/*.py
  : >"$root/etc/machine-id"
}

if [[ ${1:-} == customize ]]; then
  customize "$2"
  exit
fi

debian_rootfs "$DEBIAN_SUITE" ./rootfs.tar prometheus,prometheus-node-exporter,prometheus-blackbox-exporter,python3,ca-certificates --customize-hook="bash $here/build.sh customize \"\$1\""

oci_image prometheus.tar.zst "slipway.local/prometheus:$VERSION" rootfs.tar --user 10005:10005 --workdir /data \
  --env PATH=/usr/bin:/bin --env LANG=C.UTF-8 --env PYTHONDONTWRITEBYTECODE=1 --entrypoint '["/usr/bin/prometheus"]' --port 9090 --port 9100 --port 9115
