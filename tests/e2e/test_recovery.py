"""The platform heals by itself: after each of these faults the user's whole path is green again within 120 s."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from cluster_access import Cluster

pytestmark = pytest.mark.alone
RECOVERY_SECONDS = 120
NAME = "app.kubernetes.io/name"


def pods(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """Return the names of the pods of a workload; a fault that hits nothing proves nothing."""
    found = [
        p["metadata"]["name"]
        for p in cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{NAME}={name}")
    ]
    assert found, f"no pod of {namespace}/{name}"
    return found


def kill(cluster: Cluster, namespace: str, name: str) -> None:
    """Delete a workload's pods at once, as a crash of their host's kernel would."""
    for pod in pods(cluster, namespace, name):
        cluster.delete(f"/api/v1/namespaces/{namespace}/pods/{pod}", grace_seconds=0)


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("auth", "auth"),
        ("api", "api"),
        ("image-storage", "image"),
        ("web", "web"),
        ("infrastructure", "postgres"),
        ("infrastructure", "redis"),
    ],
)
def test_green_again_after_a_pod_was_killed(
    cluster: Cluster, smoke_within: Callable[[float], float], namespace: str, name: str
) -> None:
    kill(cluster, namespace, name)
    print(f"recovered from the loss of {namespace}/{name} in {smoke_within(RECOVERY_SECONDS):.1f}s")


@pytest.mark.parametrize("host", ["agent-1", "agent-2"])
def test_green_again_after_an_agent_was_restarted(smoke_within: Callable[[float], float], host: str) -> None:
    subprocess.run(["podman", "restart", "--time", "5", f"slipway-{host}"], check=True, capture_output=True, timeout=60)
    print(f"recovered from the restart of {host} in {smoke_within(RECOVERY_SECONDS):.1f}s")


def test_every_node_is_ready_afterwards(cluster: Cluster) -> None:
    def ready() -> list[str]:
        return sorted(
            n["metadata"]["name"]
            for n in cluster.items("/api/v1/nodes")
            for c in n["status"]["conditions"]
            if (c["type"], c["status"]) == ("Ready", "True")
        )

    # Users are served again by the other nodes before the one that was restarted has told that it is back.
    limit = time.monotonic() + RECOVERY_SECONDS
    while (found := ready()) != ["agent-1", "agent-2", "server-1"] and time.monotonic() < limit:
        time.sleep(1)
    assert found == ["agent-1", "agent-2", "server-1"]
