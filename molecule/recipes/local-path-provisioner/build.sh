#!/usr/bin/env bash
source "$LIB"

go_build local-path-provisioner github.com/rancher/local-path-provisioner "-X main.VERSION=v$VERSION"
