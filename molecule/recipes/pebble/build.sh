#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

root="$WORK/root"
mkdir -p "$root"
go_build "$root/pebble" github.com/letsencrypt/pebble/v2/cmd/pebble "-X main.version=v$VERSION"
oci_image pebble.tar.zst "slipway.local/pebble:$VERSION" "$root" \
  --user 65532:65532 --entrypoint '["/pebble"]' --port 14000 --port 15000
