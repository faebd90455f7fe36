#!/usr/bin/env bash
source "$LIB"

go_build metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server \
  "-X k8s.io/component-base/version.gitVersion=v$VERSION"
