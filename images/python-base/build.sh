#!/usr/bin/env bash
# Leaves the image, and its file system for recipes that have to run this Python.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

customize() {
  local root=$1
  printf 'service:x:10001:10001:service:/nonexistent:/usr/sbin/nologin\n' >>"$root/etc/passwd"
  printf 'service:x:10001:\n' >>"$root/etc/group"
  ln -s /usr/bin/python3 "$root/usr/local/bin/python"
  install -d "$root/app"
  # Nothing in a service changes its user, so nothing in its image may offer to.
  find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +
  rm -rf "$root"/var/cache/debconf/* "$root"/var/lib/dpkg/*-old "$root"/usr/share/info
  find "$root/usr/lib/python3" "$root"/usr/lib/python3.* -name __pycache__ -prune -exec rm -rf {} +
  chroot "$root" python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib
  : >"$root/etc/machine-id"
}

if [[ ${1:-} == customize ]]; then
  customize "$2"
  exit
fi

here=$(cd "$(dirname "$0")" && pwd)
debian_rootfs "$VERSION" rootfs.tar python3,ca-certificates,tzdata,netbase \
  --customize-hook="bash $here/build.sh customize \"\$1\""
oci_image python-base.tar.zst "slipway.local/python-base:${KEY:0:12}" "$OUT/rootfs.tar" --user 10001:10001 --workdir /app \
  --env PATH=/usr/local/bin:/usr/bin:/bin --env LANG=C.UTF-8 --env PYTHONDONTWRITEBYTECODE=1 --env PYTHONUNBUFFERED=1
