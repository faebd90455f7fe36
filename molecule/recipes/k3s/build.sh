#!/usr/bin/env bash
# Packs the programs that the stand-in starts and compiles them into it.
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$SOURCE/molecule/standin" "$work/source"
bundle="$work/source/bundle"

"$PYTHON" bundle.py "$bundle/bundle.tar.zst" \
  "$NEED_KUBERNETES/kubernetes" "$NEED_CONTAINERD"/{containerd,containerd-shim-runc-v2,ctr} \
  "$NEED_ETCD"/{etcd,etcdctl} "$NEED_CNI"/{bridge,host-local,loopback,portmap} "$NEED_CRICTL/crictl" \
  --link kubernetes kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
sha256sum "$bundle/bundle.tar.zst" | cut -d ' ' -f 1 >"$bundle/sha256"
printf 'v%s+lab1\n' "$VERSION" >"$bundle/version"

cd "$work/source"
go_build k3s .
cp "$NEED_K3S_IMAGES/k3s-airgap-images-amd64.tar.zst" "$OUT/"
