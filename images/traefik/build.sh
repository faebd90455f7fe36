#!/usr/bin/env bash
# One static program and the public CAs it checks upstreams and OIDC providers against; nothing else, not even a shell.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

root="$WORK/root"
mkdir -p "$root/etc/ssl/certs" "$root/usr/local/bin"
go_build "$root/usr/local/bin/traefik" github.com/traefik/traefik/v3/cmd/traefik \
  "-X github.com/traefik/traefik/v3/pkg/version.Version=$VERSION"
cp "$("$PYTHON" -m certifi)" "$root/etc/ssl/certs/ca-certificates.crt"
oci_image traefik.tar.zst "slipway.local/traefik:$VERSION" "$root" \
  --user 65532:65532 --entrypoint /usr/local/bin/traefik --port 8000 --port 8443 \
  --label "org.opencontainers.image.version=$VERSION"
