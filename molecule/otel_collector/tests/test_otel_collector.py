"""The collectors: what they add to lines, what they may do, and that nobody feels it when Loki and Jaeger are away."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from cluster_client import Client, Pods, restricted_pod
from confinement import Confinement, confinements
from https_client import ask
from kubernetes.client import AppsV1Api
from telemetry import Telemetry

NAMESPACE, BACKENDS, OWN = "otel-collector", "monitoring", "molecule-otel-collector-own"
NAME = "app.kubernetes.io/name=otel-collector"
REQUESTS = 200

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(BACKENDS)]

# Numbered lines, twenty each second, for as long as it is let.
WRITER = """
import json, itertools, time
for number in itertools.count():
    line = {"event": "numbered", "number": number, "level": "warning", "request_id": "molecule"}
    print(json.dumps({**line, "trace_id": "%032x" % (number + 1)}), flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def telemetry(client: Client) -> Telemetry:
    """Return the way to ask Loki."""
    return Telemetry(client)


@pytest.fixture(scope="module")
def writer(pods: Pods, service_image: str) -> Iterator[str]:
    """Return the name of a pod that writes numbered lines."""
    with pods.namespace(OWN):
        container = {"command": ["python3", "-c", WRITER]}
        pods.core.create_namespaced_pod(OWN, restricted_pod("writer", service_image, container=container))
        pods.wait_ready(OWN, "writer")
        yield "writer"


def numbers(telemetry: Telemetry) -> set[int]:
    """Return the numbers that have arrived."""
    return {json.loads(line)["number"] for _, line in telemetry.lines(f'{{k8s_namespace_name="{OWN}"}}')}


def written(pods: Pods, writer: str) -> int:
    """Return the last number that the pod has written, by the kubelet."""
    last = pods.core.read_namespaced_pod_log(writer, OWN, tail_lines=1)
    return int(json.loads(last)["number"])


def test_there_is_one_on_every_node(pods: Pods, hosts: dict[str, Any]) -> None:
    found = pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items
    assert sorted(pod.spec.node_name for pod in found) == sorted(hosts)


def test_it_reads_files_of_root_without_its_powers(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    root = Confinement(0, capabilities=0, no_new_privileges=True, seccomp=True, read_only_root=True)
    assert found == dict.fromkeys(found, root)
    for pod in pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items:
        paths = {volume.host_path.path for volume in pod.spec.volumes if volume.host_path}
        assert paths == {"/var/log/pods", "/var/lib/slipway/otel-collector"}
        assert not pod.spec.host_network
        assert [port.host_port for container in pod.spec.containers for port in container.ports if port.host_port] == []


def test_it_may_look_at_pods_and_at_nothing_else(pods: Pods) -> None:
    may = partial(pods.may, f"{NAMESPACE}:otel-collector", namespace="api")
    assert may("watch", "pods")
    for verb, resource in (("get", "secrets"), ("list", "configmaps"), ("delete", "pods"), ("create", "pods")):
        assert not may(verb, resource), f"{verb} {resource}"


def test_a_line_keeps_its_text_and_says_whose_it_is(telemetry: Telemetry, pods: Pods, writer: str) -> None:
    node = pods.core.read_namespaced_pod(writer, OWN).spec.node_name
    query = f'{{k8s_namespace_name="{OWN}"}} | trace_id="{8:032x}"'
    assert pods.eventually(lambda: len(telemetry.lines(query)), 1) == 1
    [(labels, line)] = telemetry.lines(query)
    assert json.loads(line) == {
        "event": "numbered",
        "number": 7,
        "level": "warning",
        "request_id": "molecule",
        "trace_id": f"{8:032x}",
    }
    wanted = {
        "service_name": "writer",
        "k8s_pod_name": "writer",
        "k8s_container_name": "main",
        "k8s_node_name": node,
        "request_id": "molecule",
        "severity_text": "warning",
        "detected_level": "warn",
    }
    assert wanted.items() <= labels.items(), labels


def test_a_line_that_is_no_json_is_kept_too(telemetry: Telemetry, pods: Pods) -> None:
    def found() -> bool:
        return bool(telemetry.lines('{service_name="postgres"}', seconds=86400))

    assert pods.eventually(found, True)


def test_without_loki_and_jaeger_no_request_fails_and_no_line_is_lost(
    telemetry: Telemetry, pods: Pods, writer: str, inventory: Any, domain: str, trust: ssl.SSLContext
) -> None:
    """Meanwhile the collector of the writer's node starts anew: what it had read and not sent is on its disk."""
    apps: Any = AppsV1Api(pods.api)
    sets = ("loki", "jaeger")
    gone_at = written(pods, writer)
    try:
        for name in sets:
            apps.patch_namespaced_stateful_set_scale(name, BACKENDS, {"spec": {"replicas": 0}})
        both = "app.kubernetes.io/name in (loki, jaeger)"
        assert pods.eventually(lambda: pods.core.list_namespaced_pod(BACKENDS, label_selector=both).items, []) == []
        addresses = [inventory.address(host) for host in inventory.hosts()]
        answers = [
            ask(addresses[number % len(addresses)], domain, "/api/v1/posts?limit=1", trust).status
            for number in range(REQUESTS)
        ]
        node = pods.core.read_namespaced_pod(writer, OWN).spec.node_name
        for pod in pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items:
            if pod.spec.node_name == node:
                pods.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE)
        pods.eventually(lambda: written(pods, writer) > gone_at + 400, True)
        last = written(pods, writer)
    finally:
        for name in sets:
            apps.patch_namespaced_stateful_set_scale(name, BACKENDS, {"spec": {"replicas": 1}})
        for name in sets:
            pods.wait_ready(BACKENDS, f"{name}-0")
    assert answers == [200] * REQUESTS
    wanted = set(range(last + 1))
    pods.eventually(lambda: wanted <= numbers(telemetry), True)
    missing = sorted(wanted - numbers(telemetry))
    assert missing == [], f"{len(missing)} of {last + 1} lines are missing, from {missing[0]} to {missing[-1]}"
    print(f"\n{REQUESTS} requests answered and {last + 1} lines kept, {last - gone_at} of them written without Loki")
