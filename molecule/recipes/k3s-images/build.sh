#!/usr/bin/env bash
# Every image bears the release's version as its tag: they belong to one release, as the official archive does.
source "$LIB"

tag="v$VERSION-lab1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image <name> <user> <entrypoint> <program>...: an image of nothing but programs.
image() {
  local name=$1 user=$2 entrypoint=$3 root="$work/$1"
  shift 3
  mkdir -p "$root/tmp"
  chmod 1777 "$root/tmp"
  install -m 0755 "$@" "$root/"
  oci_image "$work/$name.tar.zst" "lab.local/$name:$tag" "$root" --user "$user" --entrypoint "[\"$entrypoint\"]"
}

(cd pause && go_build "$work/pause.bin" .)
mv "$work/pause.bin" "$work/program-pause" && mkdir "$work/programs" && mv "$work/program-pause" "$work/programs/pause"
image pause 65535 /pause "$work/programs/pause"
image coredns 65532 /coredns "$NEED_COREDNS/coredns"
image metrics-server 65534 /metrics-server "$NEED_METRICS_SERVER/metrics-server"
image local-path-provisioner 0 /local-path-provisioner "$NEED_LOCAL_PATH_PROVISIONER/local-path-provisioner"

# busybox is local-path-provisioner's helper: Debian's static one, with links for its applets.
packages="$SLIPWAY_CACHE/apt"
mkdir -p "$packages" "$work/busybox/bin" "$work/busybox/tmp"
