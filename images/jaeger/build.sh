#!/usr/bin/env bash
# cmd/jaeger is version 2, whatever the number of its module says. The module carries no web page: this has the API alone.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

root="$WORK/root"
mkdir -p "$root/usr/local/bin"
go_build "$root/usr/local/bin/jaeger" github.com/jaegertracing/jaeger/cmd/jaeger \
  "-X github.com/jaegertracing/jaeger/pkg/version.latestVersion=v$VERSION"
oci_image jaeger.tar.zst "slipway.local/jaeger:$VERSION" "$root" \
  --user 10008:10008 --entrypoint /usr/local/bin/jaeger --port 4317 --port 16686 \
  --label "org.opencontainers.image.version=$VERSION"
