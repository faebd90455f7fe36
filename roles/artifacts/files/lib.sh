# shellcheck shell=bash
# What every build.sh may use. The environment that it runs in is described in roles/artifacts/README.md.
set -euo pipefail

# shellcheck source=roles/artifacts/files/debian.sh
. "${LIB%/*}/debian.sh"

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

# oci_image <output.tar.zst> <reference> <layer>... [--base archive] [--user 10001] [--env A=b] [--entrypoint '["/app"]']
#   [--cmd '["serve"]'] [--workdir /app] [--port 8080] [--label a=b] [--owner uid:gid]
# A layer is a directory or a tar; a directory may have a place: build/site=/app/site-packages
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
