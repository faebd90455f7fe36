"""What is left of k3s on a host after tasks_from uninstall: nothing."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/usr/local/bin/k3s",
        "/usr/local/bin/kubectl",
        "/usr/local/bin/crictl",
        "/usr/local/bin/ctr",
        "/usr/local/bin/k3s-killall.sh",
        "/etc/systemd/system/k3s.service",
        "/etc/rancher/k3s",
        "/run/k3s",
    ],
)
def test_no_file_is_left(server: Any, path: str) -> None:
    assert not server.file(path).exists


@pytest.mark.parametrize("directory", ["/var/lib/rancher/k3s", "/var/lib/kubelet"])
def test_no_data_is_left(server: Any, directory: str) -> None:
    assert server.run(f"ls -A {directory}").stdout == ""


def test_nothing_of_it_runs(server: Any) -> None:
    processes = server.check_output("ps -eo comm,args")
    names = ("k3s", "containerd", "kube", "etcd", "traefik", "postgres")
    assert [line for line in processes.splitlines() if line.split()[0].startswith(names)] == []


def test_nothing_of_it_is_mounted(server: Any) -> None:
    mounts = [line.split()[1] for line in server.check_output("cat /proc/mounts").splitlines()]
    volumes = {"/var/lib/rancher", "/var/lib/kubelet"}  # the lab's own, from before
    assert [
        m for m in mounts if m.startswith(("/var/lib/rancher", "/var/lib/kubelet", "/run/k3s")) and m not in volumes
    ] == []


def test_the_network_is_as_before(server: Any) -> None:
    links = server.check_output("ip -o link").splitlines()
    assert [link for link in links if any(name in link for name in ("cni0", "flannel", "veth"))] == []
    rules = server.check_output("nft list ruleset; iptables-save")
    assert [line for line in rules.splitlines() if "KUBE-" in line or "kube-proxy" in line or "CNI-" in line] == []
    routes = server.check_output("ip route")
    assert "10.42." not in routes
    namespaces = server.check_output("ip netns list")
    assert "cni-" not in namespaces


def test_the_baseline_is_still_there(server: Any) -> None:
    assert server.check_output("sysctl -n net.ipv4.ip_forward") == "1"
    assert server.file("/etc/sysctl.d/90-slipway.conf").exists
