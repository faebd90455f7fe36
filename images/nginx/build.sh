#!/usr/bin/env bash
# Of a Debian only nginx and its libraries stay: it serves files and runs nothing, so not even a shell is needed.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

debian_rootfs "$VERSION" ./debian.tar nginx
mkdir debian root
tar -xf debian.tar -C debian

# Each by the path that it is asked for.
keep() {
  local file
  for file in "$@"; do
    mkdir -p "root${file%/*}"
    cp -L "debian$file" "root$file"
  done
}
mapfile -t libraries < <(chroot debian ldd /usr/sbin/nginx | grep -oE '/[^ ]+' | sort -u)
keep /usr/sbin/nginx /etc/nginx/mime.types "${libraries[@]}"

install -d -m 1777 root/tmp
printf 'nginx:x:10001:10001:nginx:/nonexistent:/usr/sbin/nologin\n' >root/etc/passwd
printf 'nginx:x:10001:\n' >root/etc/group

# It prints its version, so all it needs is there.
chroot root /usr/sbin/nginx -e stderr -v

oci_image nginx.tar.zst "slipway.local/nginx:${KEY:0:12}" root --user 10001:10001 \
  --env PATH=/usr/sbin --entrypoint '["/usr/sbin/nginx", "-e", "stderr", "-p", "/tmp/", "-c", "/etc/nginx/nginx.conf"]'
