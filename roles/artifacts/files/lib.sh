# shellcheck shell=bash
# What every build.sh may use. The environment it runs in is described in roles/artifacts/README.md.
set -euo pipefail

# Where a file goes: a plain name is an output of the recipe, anything with a slash is meant as it is written.
__place() {
  case "$1" in
    */*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$OUT" "$1" ;;
  esac
}

# go_build <output> <package> [ldflags]: a static, stripped program without a trace of where it was built.
go_build() {
  "$GO" build -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$(__place "$1")" "$2"
}

# debian_rootfs <suite> <output.tar> <package,package,...> [mmdebstrap options]: the file system of a minimal Debian.
# Packages come from Debian's own address and are kept in the cache, so that the next root file system needs only the lists.
debian_rootfs() {
  local suite=$1 output packages=$3 apt="$SLIPWAY_CACHE/apt"
  output=$(__place "$2")
  shift 3
  mkdir -p "$apt"
  # A link costs nothing; where the file systems differ (or links are refused) a copy does the same.
  local take='mkdir -p "$1/var/cache/apt/archives"; find '"'$apt'"' -name "*.deb" -exec cp -l -t "$1/var/cache/apt/archives" {} + 2>/dev/null
    || find '"'$apt'"' -name "*.deb" -exec cp -t "$1/var/cache/apt/archives" {} +'
  local keep='for deb in "$1"/var/cache/apt/archives/*.deb; do [ -e "$deb" ] || continue; to='"'$apt'"'/${deb##*/};
    if [ -e "$to" ]; then touch "$to"; else cp "$deb" "$to.$$" && mv "$to.$$" "$to"; fi; done'
  mmdebstrap --variant=minbase --skip=essential/unlink --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --setup-hook="$(tr '\n' ' ' <<<"$take")" \
    --customize-hook="$(tr '\n' ' ' <<<"$keep")" \
    --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/var/log/*.log "$1"/var/log/apt' \
    "$@" "$suite" "$output"
}

# oci_image <output.tar.zst> <reference> <layer>... [--base archive] [--user 10001] [--env A=b] [--entrypoint '["/app"]']
#   [--cmd '["serve"]'] [--workdir /app] [--port 8080] [--label a=b] [--owner uid:gid]
# A layer is a directory or a tar, or either with a place: build/site=/app/site-packages
oci_image() {
  local output
  output=$(__place "$1")
  shift
  "$PYTHON" "${LIB%/*}/oci_image.py" build "$output" "$@"
}

# oci_merge <output.tar.zst> <archive.tar.zst>...: one archive that holds the images of several.
oci_merge() {
  local output
  output=$(__place "$1")
  shift
  "$PYTHON" "${LIB%/*}/oci_image.py" merge "$output" "$@"
}
