#!/usr/bin/env bash
# One static program. What is in it says builder.yaml; the Go files, go.mod and go.sum are what the Collector's builder makes of
# it, kept here so that every module is pinned. After a change of builder.yaml:
#   go run go.opentelemetry.io/collector/cmd/builder@v<version> --config builder.yaml --skip-compilation
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

root="$WORK/root"
mkdir -p "$root/usr/local/bin"
go_build "$root/usr/local/bin/otel-collector" .
oci_image otel-collector.tar.zst "slipway.local/otel-collector:$VERSION" "$root" \
  --user 10009:10009 --entrypoint /usr/local/bin/otel-collector --port 4317 --port 4318 \
  --label "org.opencontainers.image.version=$VERSION"
