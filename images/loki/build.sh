#!/usr/bin/env bash
# One static program and the public CAs, for object stores elsewhere; nothing else, not even a shell.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

root="$WORK/root"
mkdir -p "$root/etc/ssl/certs" "$root/usr/local/bin"
go_build "$root/usr/local/bin/loki" github.com/grafana/loki/v3/cmd/loki \
  "-X github.com/grafana/loki/v3/pkg/util/build.Version=$VERSION"
cp "$("$PYTHON" -m certifi)" "$root/etc/ssl/certs/ca-certificates.crt"
oci_image loki.tar.zst "slipway.local/loki:$VERSION" "$root" \
  --user 10007:10007 --entrypoint /usr/local/bin/loki --port 3100 \
  --label "org.opencontainers.image.version=$VERSION"
