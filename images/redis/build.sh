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
  wanted "$root" redis-server redis_version "$VERSION"
  wanted "$root" prometheus-redis-exporter redis_exporter_version "$REDIS_EXPORTER_VERSION"
  # Volumes that ignore fsGroup keep what this number wrote, whatever number the package picks.
  sed -i 's/^redis:x:[0-9]*:[0-9]*:/redis:x:10004:10004:/' "$root/etc/passwd"
  sed -i 's/^redis:x:[0-9]*:/redis:x:10004:/' "$root/etc/group"
  # Nothing changes its user here, so nothing may offer to.
  find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +
  rm -rf "$root"/etc/redis/* "$root"/var/lib/redis "$root"/var/cache/debconf/*
  : >"$root/etc/machine-id"
}

if [[ ${1:-} == customize ]]; then
  customize "$2"
  exit
fi

packages=redis-server,prometheus-redis-exporter,ca-certificates
debian_rootfs "$DEBIAN_SUITE" ./rootfs.tar "$packages" --customize-hook="bash $here/build.sh customize \"\$1\""

oci_image redis.tar.zst "slipway.local/redis:$VERSION" rootfs.tar --user 10004:10004 --workdir /data \
  --env PATH=/usr/bin:/bin --env LANG=C.UTF-8 --entrypoint '["/usr/bin/redis-server"]' --port 6379 --port 9121
