#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

module=github.com/containerd/containerd/v2
for program in containerd containerd-shim-runc-v2 ctr; do
  go_build "$program" "$module/cmd/$program" "-X $module/version.Version=v$VERSION"
done
