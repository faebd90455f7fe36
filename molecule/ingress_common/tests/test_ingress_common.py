"""One controller takes over from another, with clients that go on asking every node meanwhile.

Traefik takes over from pods that stand in for ingress-nginx: they have its labels and the host ports, and answer in
plain text. What runs is the whole path of a user: `site.yml`.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import kubernetes
import pytest
from cluster_client import READY_SECONDS, Pods, restricted_pod
from controller import Inventory, playbook
from https_client import ask

NAMESPACE, OLD = "ingress-nginx", "ingress-nginx"
OF_OLD = f"app.kubernetes.io/name={OLD}"
UNTRUSTED = ssl._create_unverified_context

pytestmark = pytest.mark.explain(NAMESPACE)


@dataclass
class Watch:
    """Who answers at the port 443 of a node, asked again and again: `old`, `new`, or nobody."""

    address: str
    seen: list[tuple[float, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.2):
            began = time.monotonic()
            self.seen.append((began, self._who()))

    def _who(self) -> str:
        try:
            with (
                socket.create_connection((self.address, 443), timeout=2) as plain,
                UNTRUSTED().wrap_socket(plain, server_hostname="slipway.test"),
            ):
                return "new"
        except ssl.SSLError:
            return "old"
        except OSError:
            return "nobody"

    def away(self) -> list[tuple[float, float]]:
        """Return from when to when nobody answered."""
        spans, began = [], None
        for moment, who in self.seen:
            if who == "nobody":
                began = moment if began is None else began
            elif began is not None:
                spans.append((began, moment))
                began = None
        return spans if began is None else [*spans, (began, float("inf"))]

    def order(self) -> list[str]:
        """Return who answered after whom."""
        answers = [who for _, who in self.seen if who != "nobody"]
        return [who for index, who in enumerate(answers) if index == 0 or answers[index - 1] != who]


def stand_in(image: str) -> dict[str, Any]:
    """Return a DaemonSet that looks like that of ingress-nginx to the role, and answers in plain text."""
    labels = {
        "app.kubernetes.io/name": OLD,
        "app.kubernetes.io/component": "ingress",
        "app.kubernetes.io/part-of": "slipway",
    }
    server = (
        "import socketserver\n"
        "class H(socketserver.BaseRequestHandler):\n"
        "    def handle(self): self.request.recv(9); self.request.sendall(b'old')\n"
        "class S(socketserver.ThreadingTCPServer): allow_reuse_address = True\n"
        "S(('', 8443), H).serve_forever()\n"
    )
    pod = restricted_pod(
        OLD,
        image,
        container={
            "command": ["python3", "-c", server],
            "ports": [{"containerPort": 8080, "hostPort": 80}, {"containerPort": 8443, "hostPort": 443}],
            "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        },
        restartPolicy="Always",
        # As every controller of the platform: of less importance, it would be pushed from its ports at once.
        priorityClassName="slipway-platform",
    )
    return {
        "metadata": {"name": OLD, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": OLD}},
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
        },
    }


class Controllers:
    """The controllers' DaemonSets and pods."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.apps: Any = kubernetes.client.AppsV1Api(pods.api)

    def running(self, selector: str) -> list[str]:
        """Return the nodes on which pods of a selector are ready."""
        found = self.pods.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items
        return sorted(
            pod.spec.node_name
            for pod in found
            if [c.status for c in pod.status.conditions or [] if c.type == "Ready"] == ["True"]
        )

    def remove(self, name: str, how: str = "Foreground") -> None:
        """Delete a DaemonSet, if it is there, with its pods or without."""
        try:
            self.apps.delete_namespaced_daemon_set(name, NAMESPACE, propagation_policy=how)
        except kubernetes.client.ApiException as error:
            assert error.status == 404
        if how == "Foreground":
            selector = f"app.kubernetes.io/name={name}"
            self.pods.core.delete_collection_namespaced_pod(NAMESPACE, label_selector=selector)
            gone = self.pods.eventually(
                lambda: len(self.pods.core.list_namespaced_pod(NAMESPACE, label_selector=selector).items), 0
            )
            assert gone == 0, f"pods of {name} do not go away"


@pytest.fixture
def old(pods: Pods, inventory: Inventory, service_image: str) -> Iterator[Controllers]:
    """Have the stand-in serve instead of Traefik, on every node."""
    controllers = Controllers(pods)
    nodes = sorted(inventory.hosts())
    try:
        controllers.remove("traefik")
        controllers.apps.create_namespaced_daemon_set(NAMESPACE, stand_in(service_image))
        assert pods.eventually(lambda: controllers.running(OF_OLD), nodes) == nodes
        yield controllers
    finally:
        # Whatever happened, Traefik serves again afterwards.
        controllers.remove(OLD)
        restored = playbook("site.yml", "--tags", "traefik")
        assert restored.code == 0, restored.output


@pytest.mark.parametrize("interrupted", [False, True], ids=["whole", "after-an-interruption"])
def test_a_controller_takes_over_node_by_node(
    old: Controllers, pods: Pods, inventory: Inventory, domain: str, trust: ssl.SSLContext, interrupted: bool
) -> None:
    nodes = sorted(inventory.hosts())
    if interrupted:
        # As if a run had ended after it had left the old pods to themselves, and stopped one of them.
        old.remove(OLD, "Orphan")
        first = pods.core.list_namespaced_pod(NAMESPACE, label_selector=OF_OLD).items[0].metadata.name
        pods.core.delete_namespaced_pod(first, NAMESPACE)
        left = len(nodes) - 1
        assert pods.eventually(lambda: len(old.running(OF_OLD)), left) == left
    watches = {node: Watch(inventory.address(node)) for node in nodes}
    threads = [threading.Thread(target=watch.run) for watch in watches.values()]
    for thread in threads:
        thread.start()
    try:
        run = playbook("site.yml", "--tags", "traefik")
    finally:
        for watch in watches.values():
            watch.ended.set()
        for thread in threads:
            thread.join(READY_SECONDS)
    assert run.code == 0, run.output
    assert "changed" in run.output
    assert old.running("app.kubernetes.io/name=traefik") == nodes
    assert pods.core.list_namespaced_pod(NAMESPACE, label_selector=OF_OLD).items == []
    names = [one.metadata.name for one in old.apps.list_namespaced_daemon_set(NAMESPACE).items]
    assert names == ["traefik"]
    for node in nodes:
        assert ask(inventory.address(node), domain, "/", trust).status == 200, node

    away = {node: watch.away() for node, watch in watches.items()}
    print({node: [round(end - begin, 1) for begin, end in spans] for node, spans in away.items()})
    kept = [node for node, watch in watches.items() if watch.order() == ["old", "new"]]
    assert len(kept) >= len(nodes) - interrupted, {node: watch.order() for node, watch in watches.items()}
    spans = sorted(span for node in kept for span in away[node])
    assert all(second[0] >= first[1] for first, second in itertools.pairwise(spans)), (
        f"two nodes were away at once: {away}"
    )


def test_a_second_run_changes_nothing() -> None:
    run = playbook("site.yml", "--tags", "ingress_common")
    assert run.code == 0, run.output
    assert run.changed == 0


def test_one_ingress_alone_says_which_certificate_the_names_have(
    cluster: Any, definitions: dict[str, Any], inventory: Inventory
) -> None:
    ingresses = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"]
        for one in cluster.items("/apis/networking.k8s.io/v1/ingresses")
        if not one["metadata"]["name"].startswith("molecule-")
    }
    assert [key for key, spec in ingresses.items() if "tls" in spec] == [(NAMESPACE, "public-certificate")]
    hosts = {rule["host"] for spec in ingresses.values() for rule in spec["rules"]}
    assert {host for entry in ingresses[NAMESPACE, "public-certificate"]["tls"] for host in entry["hosts"]} == hosts
    # Those of the services, that of the status page, and that of Grafana where it has an image.
    own = {"public-certificate", "status-page", *(["grafana"] if inventory.variable("grafana_image") else [])}
    assert {name for _, name in ingresses} == own | {name for name, one in definitions.items() if "ingress" in one}
