#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

mkdir root
tar -xf "$NEED_PYTHON_BASE/rootfs.tar" -C root
mkdir root/app/site-packages
for package in "$SOURCE/services/kit/src" "$SOURCE/services/$PARAM_SERVICE/src"; do
  tar -C "$package" --exclude=__pycache__ --exclude='*.egg-info' --mode=u=rwX,go=rX -cf - . | tar -C root/app/site-packages -xf -
done
chroot root python3 -m compileall -q --invalidation-mode unchecked-hash /app/site-packages

oci_image image.tar.zst "slipway.local/$PARAM_SERVICE:${KEY:0:12}" root/app/site-packages=/app/site-packages \
  --base "$NEED_PYTHON_DEPENDENCIES/python-dependencies.tar.zst" --label "org.opencontainers.image.title=$PARAM_SERVICE" \
  --entrypoint "[\"python3\", \"-m\", \"slipway_${PARAM_SERVICE//-/_}\"]"
