#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

site=$WORK/site
mkdir "$site" root
(cd "$SOURCE/services/web" && cp -R src public index.html package.json package-lock.json .npmrc tsconfig.json vite.config.ts "$site")
export npm_config_cache=$SLIPWAY_CACHE/npm
"$SOURCE/scripts/npm" --prefix "$site" ci --prefer-offline --omit=dev
"$SOURCE/scripts/npm" --prefix "$site" run build

install -d root/etc/nginx root/srv
install -m 0644 nginx.conf root/etc/nginx/nginx.conf
cp -R "$site/dist" root/srv/web
chmod -R u=rwX,go=rX root/srv
# Compressed once here instead of for every visitor; nginx picks the file that the client can read.
find root/srv/web -type f -regex '.*\.\(html\|js\|css\|svg\|txt\)' -exec gzip -9 --keep --no-name {} +

oci_image image.tar.zst "slipway.local/web:${KEY:0:12}" root --base "$NEED_NGINX/nginx.tar.zst" --port 3000 \
  --label org.opencontainers.image.title=web
