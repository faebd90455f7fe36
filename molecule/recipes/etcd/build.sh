#!/usr/bin/env bash
source "$LIB"

go_build etcd go.etcd.io/etcd/server/v3
go_build etcdctl go.etcd.io/etcd/etcdctl/v3
