"""What the kernel says about a pod's processes, whatever its specification promised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster_client import Pods


@dataclass(frozen=True)
class Confinement:
    """How the first process of a container is confined."""

    uid: int
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    read_only_root: bool


def confined(uid: int) -> Confinement:
    """Return what Pod Security `restricted` and a read-only root add up to."""
    return Confinement(uid, capabilities=0, no_new_privileges=True, seccomp=True, read_only_root=True)


def confinements(pods: Pods, hosts: dict[str, Any], namespace: str, selector: str) -> dict[str, Confinement]:
    """Return the confinement of every container of the pods of a selector, as pod/container on node."""
    found = {}
    for name in pods.names(namespace, selector):
        pod = pods.core.read_namespaced_pod(name, namespace)
        host = hosts[pod.spec.node_name]
        for status in pod.status.container_statuses:
            where = f"{name}/{status.name} on {pod.spec.node_name}"
            found[where] = _of_container(host, status.container_id.removeprefix("containerd://"))
    return found


def _of_container(host: Any, container: str) -> Confinement:
    number = json.loads(host.check_output("crictl inspect %s", container))["info"]["pid"]
    lines = host.check_output("cat /proc/%s/status", str(number)).splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    mounts = [line.split() for line in host.check_output("cat /proc/%s/mountinfo", str(number)).splitlines()]
    [root] = [fields for fields in mounts if fields[4] == "/"]
    return Confinement(
        uid=int(status["Uid"].split()[1]),
        capabilities=int(status["CapEff"], 16) | int(status["CapPrm"], 16),
        no_new_privileges=status["NoNewPrivs"] == "1",
        seccomp=status["Seccomp"] == "2",
        read_only_root="ro" in root[5].split(","),
    )
