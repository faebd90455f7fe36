#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

mkdir root
tar -xf "$NEED_PYTHON_BASE/rootfs.tar" -C root
version=$(chroot root python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# Wheels only, and only those of the lock: nothing is compiled here, nothing is resolved here.
"$UV" pip install --quiet --python "$PYTHON" --python-version "$version" --python-platform "$(uname -m)-manylinux_2_28" \
  --target root/app/site-packages --link-mode copy --only-binary :all: --no-deps --require-hashes \
  --requirement "$SOURCE/services/requirements.txt"
# Commands that nothing in the image calls, and the installer's lock file.
rm -rf root/app/site-packages/bin root/app/site-packages/.lock
# The image is read-only where it runs: what is not compiled here is compiled anew at every start.
chroot root python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/site-packages

oci_image python-dependencies.tar.zst "slipway.local/python-dependencies:${KEY:0:12}" root/app/site-packages=/app/site-packages \
  --base "$NEED_PYTHON_BASE/python-base.tar.zst" --env PYTHONPATH=/app/site-packages
