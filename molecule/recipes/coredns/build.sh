#!/usr/bin/env bash
source "$LIB"

go_build coredns .
