#!/bin/sh
# Hook of mmdebstrap, which calls it with the root file system's directory: at first it lends the packages of the cache,
# at the end it keeps the new ones. mmdebstrap itself removes them from the result.
set -eu

cache=$SLIPWAY_CACHE/apt
archives=$1/var/cache/apt/archives
mkdir -p "$cache" "$archives"

case "$MMDEBSTRAP_HOOK" in
  setup)
    # A link costs nothing; where the two are on different file systems, a copy does the same.
    for package in "$cache"/*.deb; do
      [ ! -e "$package" ] || ln "$package" "$archives" 2>/dev/null || cp "$package" "$archives"
    done
    ;;
  customize)
    for package in "$archives"/*.deb; do
      [ -e "$package" ] || continue
      kept=$cache/${package##*/}
      if [ -e "$kept" ]; then
        touch "$kept"
      else
        cp "$package" "$kept.$$"
        mv "$kept.$$" "$kept"
      fi
    done
    rm -rf "$1"/var/log/apt "$1"/var/log/*.log
    ;;
esac
