#!/usr/bin/env bash
# Everything is Debian's, so security fixes come with a new build and not with a new version of ours.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

here=$(cd "$(dirname "$0")" && pwd)
bin="/usr/lib/postgresql/$VERSION/bin"

wanted() {
  local root=$1 package=$2 variable=$3 expected=$4 found
  found=$(chroot "$root" dpkg-query --show "$package" | cut -f2)
  if [[ ${found#*:} != "$expected".* ]]; then
    echo "$package: found $found, wanted $expected; $variable in group_vars/all/versions.yml says which" >&2
    exit 1
  fi
}

# Before any package may pick a uid of its own: volumes that ignore fsGroup keep what this number wrote.
user() {
  local root=$1
  printf 'postgres:x:10003:10003:PostgreSQL:/var/lib/postgresql:/bin/bash\n' >>"$root/etc/passwd"
  printf 'postgres:x:10003:\n' >>"$root/etc/group"
  printf 'postgres:!:20000::::::\n' >>"$root/etc/shadow"
  # The exporter signs in over the socket as the user that it runs as.
  printf '_monitor:x:10005:10005:Exporter:/nonexistent:/usr/sbin/nologin\n' >>"$root/etc/passwd"
  printf '_monitor:x:10005:\n' >>"$root/etc/group"
  # The data directory is made by Patroni in the volume, not by the package in the image.
  install -d "$root/etc/postgresql-common"
  printf 'create_main_cluster = false\n' >"$root/etc/postgresql-common/createcluster.conf"
}

customize() {
  local root=$1
  wanted "$root" prometheus-postgres-exporter postgres_exporter_version "$POSTGRES_EXPORTER_VERSION"
  wanted "$root" pgbouncer pgbouncer_version "$PGBOUNCER_VERSION"
  # The server runs with jit off; the compiler behind it would be half of the image.
  rm -rf "$root"/usr/lib/postgresql/*/lib/bitcode "$root"/usr/lib/postgresql/*/lib/llvmjit* \
    "$root"/usr/lib/*/libLLVM*.so* "$root"/usr/lib/*/libz3.so* "$root"/usr/lib/llvm-*
  # A key that was made at build time is everybody's key.
  rm -f "$root"/etc/ssl/private/* "$root"/etc/ssl/certs/ssl-cert-snakeoil.pem
  rm -rf "$root"/var/lib/postgresql/* "$root"/etc/patroni/* "$root"/var/cache/debconf/* "$root"/usr/share/postgresql-common/pgdg
  install -D -m 0644 -t "$root/usr/local/lib/postgres" "$here"/scripts/*.py
  : >"$root/etc/machine-id"
}

case "${1:-}" in
  user | customize)
    "$1" "$2"
    exit
    ;;
esac

# Patroni speaks to Kubernetes by itself. Debian wants some client library beside it, and this is the smallest.
packages="postgresql-$VERSION,patroni,python3-etcd,pgbackrest,prometheus-postgres-exporter,pgbouncer,ca-certificates"
debian_rootfs "$DEBIAN_SUITE" ./rootfs.tar "$packages" \
  --essential-hook="bash $here/build.sh user \"\$1\"" --customize-hook="bash $here/build.sh customize \"\$1\""

oci_image postgres.tar.zst "slipway.local/postgres:$VERSION" rootfs.tar --user 10003:10003 --workdir /var/lib/postgresql \
  --env "PATH=$bin:/usr/local/bin:/usr/bin:/bin" --env "PATRONI_POSTGRESQL_BIN_DIR=$bin" --env PATRONICTL_CONFIG_FILE=/etc/patroni \
  --env LANG=C.UTF-8 --env PYTHONDONTWRITEBYTECODE=1 --env PYTHONUNBUFFERED=1 \
  --entrypoint '["/usr/bin/patroni", "/etc/patroni"]' --port 5432 --port 6432 --port 8008 --port 9187
