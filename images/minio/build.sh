#!/usr/bin/env bash
# Upstream publishes no images any more, so this one is made from its Go module, at the commit that go.mod pins.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

constants=github.com/minio/minio/cmd
go_build minio github.com/minio/minio \
  "-X $constants.Version=${VERSION}T00:00:00Z -X $constants.ReleaseTag=RELEASE.${VERSION}T00-00-00Z"
go_build minio-ensure ./minio-ensure

install -D -m 0755 -t root/usr/bin "$OUT/minio" "$OUT/minio-ensure"
install -D -m 0644 "$("$PYTHON" -m certifi)" root/etc/ssl/certs/ca-certificates.crt
install -d root/etc
printf 'root:x:0:0:root:/:/sbin/nologin\nminio:x:10002:10002:minio:/tmp:/sbin/nologin\n' >root/etc/passwd
printf 'root:x:0:\nminio:x:10002:\n' >root/etc/group

oci_image minio.tar.zst "slipway.local/minio:$VERSION" root --user 10002:10002 --env HOME=/tmp \
  --entrypoint '["/usr/bin/minio"]' --port 9000 --port 9001
