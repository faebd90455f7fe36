"""Prometheus as its users ask it: whom it scrapes, what its rules do. Real alerts are made to fire in a second
installation, in a namespace of its own with an Alertmanager and a service that nobody else knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from cluster_client import Client, Pods, restricted_pod
from confinement import confined, confinements
from controller import Inventory, Run, apply_role
from kubernetes.client import AuthorizationV1Api
from rule_cases import rule_tests

NAMESPACE, STORES, OWN = "monitoring", "infrastructure", "molecule-prometheus-own"
NAME = "app.kubernetes.io/name=prometheus"
POD = "prometheus-0"
URL = "http://prometheus.monitoring.svc:9090"
SCRAPE = "prometheus.io/scrape"

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


def ask(url: str) -> Any:
    """In the cluster: the JSON of an answer; what went wrong as text."""
    import json
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())
    except OSError as error:
        return f"{url}: {error}"


@pytest.fixture
def get(client: Client) -> Any:
    """Return a function that asks the platform's Prometheus."""

    def data(path: str) -> Any:
        answer = client.call(ask, url=f"{URL}/api/v1/{path}")
        assert isinstance(answer, dict) and answer["status"] == "success", answer
        return answer["data"]

    return data


def query(get: Any, expression: str) -> list[dict[str, Any]]:
    """Return the series of an instant query."""
    return list(get(f"query?query={quote(expression)}")["result"])


def annotated(cluster: Any) -> set[tuple[str, str]]:
    """Return namespace and name of every running pod of the platform that asks to be scraped."""
    return {
        (pod["metadata"]["namespace"], pod["metadata"]["name"])
        for pod in cluster.items("/api/v1/pods")
        if pod["metadata"].get("annotations", {}).get(SCRAPE) == "true"
        and not pod["metadata"]["namespace"].startswith("molecule-")
        and pod["status"]["phase"] == "Running"
        and "deletionTimestamp" not in pod["metadata"]
    }


# --- the platform's


def test_every_pod_that_asks_for_it_is_a_target_that_is_up(
    get: Any, cluster: Any, pods: Pods, definitions: dict[str, Any]
) -> None:
    def seen() -> dict[tuple[str, str], str]:
        targets = get("targets?state=active")["activeTargets"]
        found = {(target["labels"]["namespace"], target["labels"]["pod"]): target["health"] for target in targets}
        assert len(found) == len(targets), "a pod is scraped twice"
        return found

    wanted = annotated(cluster)
    assert {namespace for namespace, _ in wanted} >= {one["namespace"] for one in definitions.values()} | {
        NAMESPACE,
        STORES,
    }
    # One that has just started is looked at within an interval.
    assert pods.eventually(seen, dict.fromkeys(wanted, "up")) == dict.fromkeys(annotated(cluster), "up")


def test_targets_are_scraped_every_15_seconds_under_the_names_of_their_services(
    get: Any, definitions: dict[str, Any]
) -> None:
    targets = get("targets?state=active")["activeTargets"]
    assert {target["scrapeInterval"] for target in targets} == {"15s"}
    assert {(t["labels"]["job"], t["labels"]["namespace"]) for t in targets} >= {
        (name, one["namespace"]) for name, one in definitions.items()
    }
    assert all(target["labels"]["service"] == target["labels"]["job"] for target in targets)


def test_metrics_of_the_services_can_be_asked_for(get: Any, pods: Pods) -> None:
    names = ("auth", "api", "image", "demo")

    def missed() -> list[str]:
        return [name for name in names if not query(get, f'http_requests_in_progress{{service="{name}"}}')]

    # A pod that has just started is looked at within an interval.
    assert pods.eventually(missed, []) == []
    for name in names:
        [series] = query(get, f'max(count_over_time(up{{job="{name}"}}[2m]))')
        # Eight of each pod in two minutes, less those before it started.
        assert 1 <= float(series["value"][1]) <= 9


def test_metrics_of_redis_can_be_asked_for(get: Any, pods: Pods) -> None:
    """That of the exporter is not enough: it also answers when Redis does not."""

    def seen() -> list[str]:
        return [series["value"][1] for series in query(get, f'redis_up{{job="redis", namespace="{STORES}"}}')]

    assert pods.eventually(seen, ["1"]) == ["1"]


def test_the_age_of_the_last_backup_and_of_its_check_can_be_asked_for(get: Any, pods: Pods) -> None:
    """Of whoever leads alone."""
    for name in ("backup_last_completed_timestamp", "backup_last_verified_timestamp"):

        def seen(metric: str = name) -> int:
            return len(query(get, f'{metric}{{job="postgres", namespace="{STORES}"}} >= 0'))

        assert pods.eventually(seen, 1) == 1, name


def test_metrics_of_every_member_of_postgres_can_be_asked_for(get: Any, pods: Pods, inventory: Inventory) -> None:
    wanted = ["1"] * inventory.variable("postgres_members")

    def seen() -> list[str]:
        return [series["value"][1] for series in query(get, f'pg_up{{job="postgres", namespace="{STORES}"}}')]

    assert pods.eventually(seen, wanted) == wanted


def test_it_knows_every_service_and_its_alertmanager(get: Any, definitions: dict[str, Any]) -> None:
    rules = [rule for group in get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    missed = {(r["labels"]["service"], r["labels"]["namespace"]) for r in rules if r["name"] == "ServiceDown"}
    assert missed == {(name, one["namespace"]) for name, one in definitions.items()}
    assert [rule["name"] for rule in rules].count("HighErrorRate") == 1
    found = get("alertmanagers")["activeAlertmanagers"]
    assert [one["url"] for one in found] == ["http://alertmanager.monitoring.svc:9093/api/v2/alerts"]


def test_nothing_fires_while_all_is_well(get: Any, pods: Pods) -> None:
    def firing() -> list[str]:
        return [str(alert["labels"]) for alert in get("alerts")["alerts"] if alert["state"] == "firing"]

    assert pods.eventually(firing, []) == []


def test_its_own_tool_accepts_settings_and_rules(pods: Pods) -> None:
    for what, path in (("config", "prometheus.yml"), ("rules", "rules/services.yml")):
        ended = pods.execute(NAMESPACE, POD, "promtool", "check", what, f"/etc/prometheus/{path}")
        assert ended.code == 0, ended.output + ended.errors


def test_every_rule_fires_stays_silent_and_ends_when_it_should(pods: Pods, cluster: Any) -> None:
    applied = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/prometheus-rules")["data"]
    rules = [rule for text in applied.values() for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    script = 'read -r cases; printf %s "$cases" >/tmp/cases.yml; promtool test rules /tmp/cases.yml'
    ended = pods.execute(NAMESPACE, POD, "sh", "-c", script, line=rule_tests(rules))
    assert ended.code == 0, (ended.output + ended.errors)[-3000:]


def test_it_may_list_pods_and_nothing_else(pods: Pods, definitions: dict[str, Any]) -> None:
    account = "system:serviceaccount:monitoring:prometheus"
    reviews: Any = AuthorizationV1Api(pods.api)

    def may(verb: str, resource: str, namespace: str = "") -> bool:
        what = {"verb": verb, "resource": resource, "namespace": namespace}
        review = reviews.create_subject_access_review({"spec": {"user": account, "resourceAttributes": what}})
        return bool(review.status.allowed)

    for namespace in {one["namespace"] for one in definitions.values()}:
        assert may("list", "pods", namespace)
        for verb, resource in (("get", "secrets"), ("list", "secrets"), ("list", "configmaps"), ("delete", "pods")):
            assert not may(verb, resource, namespace), f"{verb} {resource} in {namespace}"
    assert not may("list", "pods", "kube-system")
    assert not may("list", "nodes")
    assert not may("get", "secrets", NAMESPACE)


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10005))


def test_samples_are_kept_as_long_as_the_inventory_says(get: Any, inventory: Any) -> None:
    flags = get("status/flags")
    assert flags["storage.tsdb.retention.time"] == inventory.variable("prometheus_retention")


# --- one of the test's own

HELLO = """
import itertools, http.server
count = itertools.count(1)
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = next(count)
        text = "".join(
            'http_requests_total{method="GET",route="/",status="%s"} %d\\n' % (status, asked * each)
            for status, each in (("200", 80), ("500", 20))
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())
http.server.HTTPServer(("", 8080), Metrics).serve_forever()
"""


class Installation:
    """A second Prometheus and a second Alertmanager, which know of one service, hello."""

    alerts = f"http://alertmanager.{OWN}.svc:9093/api/v2/alerts"

    def __init__(self, state: Path, images: dict[str, str]) -> None:
        self.images = images
        self.kubeconfig = str(state / "kubeconfig")

    def apply(self, *arguments: str, **variables: Any) -> list[Run]:
        """Apply both roles; return how each ended."""
        alertmanager = {
            "alertmanager_kubeconfig": self.kubeconfig,
            "alertmanager_image": self.images["alertmanager"],
            "alertmanager_namespace": OWN,
        }
        prometheus = {
            "prometheus_kubeconfig": self.kubeconfig,
            "prometheus_image": self.images["prometheus"],
            "prometheus_namespace": OWN,
            "prometheus_storage_size": "1Gi",
            "prometheus_watched_namespaces": [OWN],
            "prometheus_services": [{"name": "hello", "namespace": OWN}],
            "prometheus_alertmanagers": [f"alertmanager.{OWN}.svc:9093"],
            **variables,
        }
        runs = [apply_role("alertmanager", *arguments, variables=alertmanager)]
        runs.append(apply_role("prometheus", *arguments, variables=prometheus))
        for run in runs:
            assert run.code == 0, run.output
        return runs

    def firing(self, client: Client, name: str) -> list[dict[str, str]]:
        """Return the labels of the alerts of a name that Alertmanager shows."""
        found = client.call(ask, url=self.alerts)
        assert isinstance(found, list), found
        return [alert["labels"] for alert in found if alert["labels"]["alertname"] == name]


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    images = {
        name: pods.core.read_namespaced_pod(f"{name}-0", NAMESPACE).spec.containers[0].image
        for name in ("alertmanager", "prometheus")
    }
    with pods.namespace(OWN):
        installation = Installation(state, images)
        installation.apply("--check")
        assert pods.core.list_namespaced_service(OWN).items == []
        installation.apply()
        yield installation


def expected(name: str) -> list[dict[str, str]]:
    """Return the labels of an alert about hello, as its receivers will get them."""
    return [{"alertname": name, "namespace": OWN, "service": "hello", "severity": "critical"}]


def test_a_second_run_changes_nothing(own: Installation) -> None:
    assert [run.changed for run in own.apply()] == [0, 0]


def test_a_service_that_is_gone_is_an_alert_until_it_is_back(
    own: Installation, client: Client, pods: Pods, service_image: str
) -> None:
    assert pods.eventually(lambda: own.firing(client, "ServiceDown"), expected("ServiceDown")) == expected(
        "ServiceDown"
    )
    pod = restricted_pod("hello", service_image, container={"command": ["python3", "-c", HELLO]})
    pod["metadata"]["annotations"] = {SCRAPE: "true", "prometheus.io/port": "8080"}
    pods.core.create_namespaced_pod(OWN, pod)
    pods.wait_ready(OWN, "hello")
    assert pods.eventually(lambda: own.firing(client, "ServiceDown"), []) == []


def test_a_service_that_fails_is_an_alert_with_its_name(own: Installation, client: Client, pods: Pods) -> None:
    """The pod of the test before says that a fifth of its answers are errors."""
    assert pods.eventually(lambda: own.firing(client, "HighErrorRate"), expected("HighErrorRate")) == expected(
        "HighErrorRate"
    )
    assert own.firing(client, "ServiceDown") == []


def test_samples_outlive_the_pod(own: Installation, client: Client, pods: Pods) -> None:
    samples = quote('up{job="hello"}[1h]')
    url = f"http://prometheus.{OWN}.svc:9090/api/v1/query?query={samples}"

    def oldest() -> float:
        answer = client.call(ask, url=url)
        series = answer["data"]["result"] if isinstance(answer, dict) else []
        return float(series[0]["values"][0][0]) if series else 0.0

    before = oldest()
    assert before > 0
    killed = pods.core.read_namespaced_pod(POD, OWN).metadata.uid
    pods.core.delete_namespaced_pod(POD, OWN, grace_period_seconds=0)
    pods.wait_ready(OWN, POD, other_than=killed)
    assert pods.eventually(oldest, before) == before


def test_a_change_of_the_rules_reaches_the_running_prometheus(own: Installation, client: Client, pods: Pods) -> None:
    services = [{"name": name, "namespace": OWN} for name in ("hello", "goodbye")]
    own.apply(prometheus_services=services)

    def missed() -> list[str]:
        answer = client.call(ask, url=f"http://prometheus.{OWN}.svc:9090/api/v1/rules")
        groups = answer["data"]["groups"] if isinstance(answer, dict) else []
        return [r["labels"]["service"] for g in groups for r in g["rules"] if r["name"] == "ServiceDown"]

    assert pods.eventually(missed, ["hello", "goodbye"]) == ["hello", "goodbye"]
