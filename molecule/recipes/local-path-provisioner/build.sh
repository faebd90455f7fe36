#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

go_build local-path-provisioner github.com/rancher/local-path-provisioner "-X main.VERSION=v$VERSION"
