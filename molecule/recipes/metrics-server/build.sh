#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

go_build metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server \
  "-X k8s.io/client-go/pkg/version.gitVersion=v$VERSION"
