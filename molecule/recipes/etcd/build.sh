#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=roles/artifacts/files/lib.sh
. "$LIB"

go_build etcd go.etcd.io/etcd/server/v3
go_build etcdctl go.etcd.io/etcd/etcdctl/v3
