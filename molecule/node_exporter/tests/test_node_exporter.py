"""The node exporter as Prometheus meets it, and what it may on its host: read."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Inventory
from exposition import metrics

NAMESPACE = "node-exporter"
NAME = "app.kubernetes.io/name=node-exporter"

pytestmark = pytest.mark.explain(NAMESPACE)


def test_it_runs_on_every_node(pods: Pods, inventory: Inventory) -> None:
    found = pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items
    assert sorted(pod.spec.node_name for pod in found) == sorted(inventory.hosts())


def test_it_tells_what_rules_ask_for(client: Client, pods: Pods) -> None:
    for pod in pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items:
        found = client.call(metrics, address=pod.status.pod_ip, port=9100)
        names = {name.partition("{")[0] for name in found}
        assert names >= {"node_time_seconds", "node_memory_MemAvailable_bytes", "node_filefd_allocated", "node_load1"}
        assert [v for name, v in found.items() if name.startswith("node_scrape_collector_success") and v != 1] == []


def test_it_sees_the_files_of_its_host_and_changes_none(pods: Pods) -> None:
    [first, *_] = pods.names(NAMESPACE, NAME)
    seen = pods.execute(NAMESPACE, first, "ls", "/host/root/etc/hostname")
    assert seen.code == 0, seen.errors
    for path in ("/host/root/tmp/changed", "/host/proc/sys/kernel/hostname", "/changed"):
        assert pods.execute(NAMESPACE, first, "sh", "-c", f"echo x >{path}").code != 0, path
    assert pods.execute(NAMESPACE, first, "cat", "/host/root/etc/shadow").code != 0


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10005))


def test_it_is_not_reachable_from_outside(pods: Pods) -> None:
    for pod in pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items:
        assert not pod.spec.host_network
        assert [port.host_port for container in pod.spec.containers for port in container.ports] == [None]
