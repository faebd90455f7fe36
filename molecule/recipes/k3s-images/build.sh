#!/usr/bin/env bash
# Every image bears the release's version as its tag: they belong to one release, as in the official archive.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image <name> <user> <program>...: an image of nothing but programs; it starts the first one.
image() {
  local name=$1 user=$2 root="$work/$1"
  shift 2
  mkdir -p "$root/tmp"
  install -m 0755 "$@" "$root/"
  oci_image "$work/$name.tar.zst" "lab.local/$name:v$VERSION-lab1" "$root" --user "$user" --entrypoint "[\"/$(basename "$1")\"]"
}

mkdir "$work/programs"
(cd pause && go_build "$work/programs/pause" .)
image pause 65535 "$work/programs/pause"
image coredns 65532 "$NEED_COREDNS/coredns"
image metrics-server 65532 "$NEED_METRICS_SERVER/metrics-server"
image local-path-provisioner 0 "$NEED_LOCAL_PATH_PROVISIONER/local-path-provisioner"

# local-path-provisioner's helper pod wants a shell: Debian's static busybox under the names of its applets.
debian_rootfs trixie "$work/debian.tar" busybox-static --variant=extract
mkdir -p "$work/busybox/bin" "$work/busybox/tmp"
tar -xOf "$work/debian.tar" ./usr/bin/busybox >"$work/busybox/bin/busybox"
chmod 0755 "$work/busybox/bin/busybox"
while read -r applet; do
  [[ $applet == busybox ]] || ln -s busybox "$work/busybox/bin/$applet"
done < <("$work/busybox/bin/busybox" --list)
oci_image "$work/busybox.tar.zst" "lab.local/busybox:v$VERSION-lab1" "$work/busybox" --entrypoint '["/bin/sh"]'

oci_merge k3s-airgap-images-amd64.tar.zst "$work"/{pause,coredns,metrics-server,local-path-provisioner,busybox}.tar.zst
