#!/usr/bin/env bash
# The version carries +lab1, so that nobody takes a node of the lab for one of the official release.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

IFS=. read -r major minor _ <<<"$VERSION"
flags=""
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  flags+=" -X $package.gitVersion=v$VERSION+lab1 -X $package.gitMajor=$major -X $package.gitMinor=$minor"
  flags+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done
go_build kubernetes . "$flags"
