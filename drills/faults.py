"""The faults. What does not heal by itself has its undo armed before: a controller that dies leaves nothing broken."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drills.installation import NAMESPACE, DrillError, Installation

# How long a host, a network or an API server is away: longer than a failover takes, lock and all.
AWAY_SECONDS = 45
TABLE = "slipway_drill"


@dataclass(frozen=True)
class Target:
    """Where a fault strikes: the leader and its standby. `hosts` are the nodes' hosts, as root."""

    installation: Installation
    hosts: Mapping[str, Any]
    leader: str
    standby: str

    @property
    def node(self) -> str:
        """The node that the leader runs on."""
        return str(self.installation.pod(self.leader).spec.node_name)

    def on(self, node: str, command: str) -> str:
        """Run a command on a node's host."""
        ended = self.hosts[node].run(command)
        if ended.rc != 0:
            raise DrillError(f"{command} on {node}: {ended.stderr.strip()[-300:]}")
        return str(ended.stdout)

    def arm(self, node: str, undo: str, seconds: int = AWAY_SECONDS) -> None:
        """Let the node's own systemd undo something later. A timer may be a minute late unless it is told otherwise."""
        timer = f"systemd-run --quiet --collect --on-active={seconds} --timer-property=AccuracySec=100ms"
        self.on(node, f"{timer} sh -c {shlex.quote(undo)}")


@dataclass(frozen=True)
class Fault:
    """What strikes, what it should cost at most, and for how long it lasts. `strike` returns the time of day it began.

    `lasts` is the time in seconds after which the members are asked whether they are in sync again: before, they may
    not have noticed.
    """

    title: str
    strike: Callable[[Target], float]
    lasts: float
    gap_seconds: float | None = None
    synchronous: bool = True


def switchover(target: Target) -> float:
    began = time.time()
    candidate = ("--candidate", target.standby, "--force")
    target.installation.execute(target.leader, "patronictl", "switchover", "postgres", *candidate)
    return began


def kill_postmaster(target: Target) -> float:
    command = "kill -KILL $(head -n 1 /var/lib/postgresql/data/postmaster.pid)"
    began = time.time()
    target.installation.execute(target.leader, "bash", "-c", command)
    return began


def delete_pod(target: Target) -> float:
    began = time.time()
    target.installation.cluster.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{target.leader}", grace_seconds=0)
    return began


def freeze_patroni(target: Target) -> float:
    """Postgres itself goes on: whoever reads the lock must not believe it longer than the kubelet takes to end both."""
    statuses = target.installation.pod(target.leader).status.container_statuses
    [found] = [status.container_id for status in statuses if status.name == "postgres"]
    container = found.removeprefix("containerd://")
    first = json.loads(target.on(target.node, f"crictl inspect {container}"))["info"]["pid"]
    patroni = target.on(target.node, f"pgrep --oldest --parent {first} --full /usr/bin/patroni").strip()
    target.arm(target.node, f"kill -CONT {patroni}")
    began = time.time()
    target.on(target.node, f"kill -STOP {patroni}")
    return began


def partition(target: Target) -> float:
    """The leader loses its standby and the API server. Its clients still reach it."""
    slices = target.installation.cluster.items(
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        labelSelector="kubernetes.io/service-name=kubernetes",
    )
    servers = [address for part in slices for end in part["endpoints"] for address in end["addresses"]]
    mine = target.installation.pod(target.leader).status.pod_ip
    others = ", ".join([target.installation.pod(target.standby).status.pod_ip, *servers])
    rules = "; ".join(
        [
            f"add table inet {TABLE}",
            f"add chain inet {TABLE} cut {{ type filter hook forward priority -300; }}",
            f"add rule inet {TABLE} cut ip saddr {mine} ip daddr {{ {others} }} drop",
            f"add rule inet {TABLE} cut ip daddr {mine} ip saddr {{ {others} }} drop",
        ]
    )
    target.arm(target.node, f"nft delete table inet {TABLE}")
    began = time.time()
    target.on(target.node, f"nft {shlex.quote(rules)}")
    return began


def stop_node(target: Target) -> float:
    """As if the power went. The host is a container of this machine, which has no systemd: a process waits instead."""
    container = f"slipway-{target.node}"
    undo = f"sleep {AWAY_SECONDS}; exec podman start {container}"
    subprocess.Popen(
        ["sh", "-c", undo],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    began = time.time()
    done = subprocess.run(["podman", "kill", container], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise DrillError(f"podman kill {container}: {done.stderr.strip()[-300:]}")
    return began


def stop_api(target: Target) -> float:
    """On all servers: nobody can ask who leads. Pods live on."""
    for server in target.installation.servers:
        target.arm(server, "systemctl start k3s")
    began = time.time()
    for server in target.installation.servers:
        target.on(server, "systemctl stop k3s")
    return began


FAULTS: Mapping[str, Fault] = {
    "switchover": Fault("planned switchover", switchover, lasts=10, gap_seconds=2),
    "crash": Fault("postmaster killed", kill_postmaster, lasts=15, gap_seconds=10),
    "pod": Fault("leader's pod deleted", delete_pod, lasts=15),
    "freeze": Fault("Patroni frozen", freeze_patroni, lasts=AWAY_SECONDS),
    "partition": Fault("leader cut off", partition, lasts=AWAY_SECONDS),
    "api": Fault("API server stopped", stop_api, lasts=AWAY_SECONDS),
    "node": Fault("leader's node stopped", stop_node, lasts=AWAY_SECONDS, gap_seconds=30),
    "control": Fault("control: asynchronous, leader cut off", partition, lasts=AWAY_SECONDS, synchronous=False),
}
