#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

module=github.com/containernetworking/plugins
for plugin in main/bridge ipam/host-local main/loopback meta/portmap; do
  go_build "${plugin#*/}" "$module/plugins/$plugin" "-X $module/pkg/utils/buildversion.BuildVersion=v$VERSION"
done
