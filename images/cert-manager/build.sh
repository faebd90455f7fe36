#!/usr/bin/env bash
# Upstream's images cannot be had everywhere, so this one is made from its Go module (main.go says how).
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

module=github.com/cert-manager/cert-manager
root="$WORK/root"
mkdir -p "$root/etc/ssl/certs" "$root/usr/local/bin"
# The program that runs without being named is the one that cert-manager starts by itself, for a challenge.
go_build "$root/usr/local/bin/acmesolver" . "-X $module/pkg/util.AppVersion=v$VERSION"
for name in controller webhook cainjector; do
  ln -s acmesolver "$root/usr/local/bin/$name"
done
cp "$("$PYTHON" -m certifi)" "$root/etc/ssl/certs/ca-certificates.crt"
oci_image cert-manager.tar.zst "slipway.local/cert-manager:$VERSION" "$root" \
  --user 65532:65532 --entrypoint '["/usr/local/bin/acmesolver"]' \
  --label "org.opencontainers.image.version=$VERSION"

cat "$("$GO" list -m -f '{{.Dir}}' $module)"/deploy/crds/*.yaml >"$OUT/crds.yaml"
