"""The blackbox exporter as Prometheus asks it: what answers is told from what does not, and certificates are read."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Inventory
from exposition import metrics

NAMESPACE = "monitoring"
NAME = "app.kubernetes.io/name=blackbox-exporter"
URL = "http://blackbox-exporter.monitoring.svc:9115"
PROMETHEUS = "http://prometheus.monitoring.svc:9090/api/v1"

pytestmark = pytest.mark.explain(NAMESPACE)


def probe(url: str, arguments: dict[str, str]) -> dict[str, float]:
    """In the cluster: what a probe tells."""
    import urllib.parse
    import urllib.request

    with urllib.request.urlopen(f"{url}/probe?{urllib.parse.urlencode(arguments)}", timeout=20) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    # The value is the last word: values of labels may have spaces.
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def series(url: str, expression: str) -> list[dict[str, object]]:
    """In the cluster: what Prometheus says."""
    import json
    import urllib.parse
    import urllib.request

    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/query?{query}", timeout=20) as answer:
        found: list[dict[str, object]] = json.loads(answer.read())["data"]["result"]
    return found


@pytest.fixture
def public(client: Client, inventory: Inventory, domain: str) -> Any:
    """Return a function that probes the public URL at a node, and what it tells; arguments replace its own."""
    [first, *_] = inventory.hosts("agent")

    def ask(**changes: str) -> dict[str, float]:
        arguments = {"module": "public", "hostname": domain, "target": f"https://{inventory.address(first)}/"}
        found: dict[str, float] = client.call(probe, url=URL, arguments=arguments | changes)
        return found

    return ask


def test_every_service_answers_through_its_service(client: Client, definitions: dict[str, dict[str, Any]]) -> None:
    for name, one in definitions.items():
        target = f"http://{name}.{one['namespace']}.svc:{one['port']}/health"
        found = client.call(probe, url=URL, arguments={"module": "health", "target": target})
        assert (found["probe_success"], found["probe_http_status_code"]) == (1, 200), name


def test_what_does_not_answer_and_what_answers_something_else_are_told(client: Client) -> None:
    for target in ("http://nobody.sre-app.svc:8080/health", "http://demo.sre-app.svc:8080/nothing-here"):
        found = client.call(probe, url=URL, arguments={"module": "health", "target": target})
        assert found["probe_success"] == 0, target


def test_the_public_url_is_asked_over_https_and_its_certificate_is_looked_at(public: Any, client: Client) -> None:
    found = public()
    assert (found["probe_success"], found["probe_http_ssl"]) == (1, 1)
    [now] = client.call(series, url=PROMETHEUS, expression="vector(time())")
    left = found["probe_ssl_earliest_cert_expiry"] - float(now["value"][1])
    assert 21 * 86400 < left < 400 * 86400


def test_another_name_than_that_of_the_certificate_is_refused(public: Any) -> None:
    assert public(hostname="another.test")["probe_success"] == 0


def test_http_alone_is_not_enough(public: Any, inventory: Inventory) -> None:
    [first, *_] = inventory.hosts("agent")
    assert public(target=f"http://{inventory.address(first)}/")["probe_success"] == 0


def test_prometheus_asks_for_all_services_and_all_names_at_all_nodes(
    client: Client, pods: Pods, definitions: dict[str, dict[str, Any]], inventory: Inventory, domain: str
) -> None:
    def seen(labels: tuple[str, ...], expression: str) -> list[tuple[str, ...]]:
        found = client.call(series, url=PROMETHEUS, expression=expression)
        return sorted(tuple(one["metric"][label] for label in labels) for one in found)

    wanted = sorted((name, one["namespace"]) for name, one in definitions.items())
    health = 'probe_success{job="blackbox", probe="health"} == 1'
    assert pods.eventually(lambda: seen(("service", "namespace"), health), wanted) == wanted
    hosts = {one["ingress"].get("host", "") for one in definitions.values() if "ingress" in one}
    own = {"status", *(["grafana"] if inventory.variable("grafana_image") else [])}
    names = [f"{host}.{domain}" if host else domain for host in hosts | own]
    nodes = [f"https://{inventory.address(host)}/" for host in inventory.hosts()]
    every = sorted((name, node) for name in names for node in nodes)
    public = 'probe_success{job="blackbox", probe="public"} == 1'
    assert pods.eventually(lambda: seen(("host", "instance"), public), every) == every
    # What a probe tells is about the one that was asked; whether the exporter answered is about nobody else.
    assert client.call(series, url=PROMETHEUS, expression='up{job="blackbox", service!=""}') == []


def test_it_tells_of_itself(client: Client, pods: Pods) -> None:
    [pod] = pods.core.list_namespaced_pod(NAMESPACE, label_selector=NAME).items
    found = client.call(metrics, address=pod.status.pod_ip, port=9115)
    assert found["blackbox_exporter_config_last_reload_successful"] == 1


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10005))


def test_it_is_not_reachable_from_outside(cluster: Any) -> None:
    found = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/services/blackbox-exporter")
    assert found["spec"]["type"] == "ClusterIP"
