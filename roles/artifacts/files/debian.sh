# shellcheck shell=bash
# Part of lib.sh: root file systems of Debian packages.

# debian_rootfs <suite> <output.tar> <package,package,...> [mmdebstrap options]: the file system of a minimal Debian.
# Packages come from Debian's own address; debian_cache.sh keeps them, so that the next one needs only the lists.
debian_rootfs() {
  local suite=$1 output packages=$3
  output=$(__place "$2")
  shift 3
  mmdebstrap --variant=minbase --skip=essential/unlink --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --setup-hook="${LIB%/*}/debian_cache.sh" --customize-hook="${LIB%/*}/debian_cache.sh" \
    "$@" "$suite" "$output"
}
