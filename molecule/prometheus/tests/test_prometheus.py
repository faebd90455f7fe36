"""Prometheus as its users ask it: whom it scrapes, what its rules do. Real alerts are made to fire in a second
installation, in a namespace of its own with an Alertmanager and a service that nobody else knows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import alert_table
import pytest
import yaml
from cluster_client import Client, Pods, restricted_pod
from confinement import confined, confinements
from controller import ROOT, Inventory, Run, apply_role
from rule_cases import rule_tests

NAMESPACE, STORES, OWN = "monitoring", "infrastructure", "molecule-prometheus-own"
NAME = "app.kubernetes.io/name=prometheus"
POD = "prometheus-0"
SETTINGS = "/etc/prometheus/prometheus.yml"
URL = "http://prometheus.monitoring.svc:9090"
SCRAPE = "prometheus.io/scrape"
PROMISE = "service:slo_availability:ratio"
TABLES = sorted((ROOT / "roles/prometheus/files/alerts").glob("*.yml"))

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


def in_pool(get: Any, *pools: str) -> list[dict[str, Any]]:
    """Return the targets that were found for some jobs of the settings."""
    return [target for target in get("targets?state=active")["activeTargets"] if target["scrapePool"] in pools]


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
        targets = in_pool(get, "pods")
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
    targets = in_pool(get, "pods")
    assert {target["scrapeInterval"] for target in targets} == {"15s"}
    assert {(t["labels"]["job"], t["labels"]["namespace"]) for t in targets} >= {
        (name, one["namespace"]) for name, one in definitions.items()
    }
    assert all(target["labels"]["service"] == target["labels"]["job"] for target in targets)


def test_every_kubelet_and_api_server_is_a_target_that_is_up(get: Any, pods: Pods, inventory: Inventory) -> None:
    hosts = inventory.hosts()
    kubelets = ("cadvisor", "kubelet", "kubelet-probes", "kubelet-resource")

    def seen() -> dict[tuple[str, str], str]:
        targets = in_pool(get, *kubelets, "kube-apiserver")
        return {(t["scrapePool"], t["labels"].get("node", "")): t["health"] + t["lastError"] for t in targets}

    wanted = {(job, host): "up" for job in kubelets for host in hosts} | {("kube-apiserver", ""): "up"}
    assert pods.eventually(seen, wanted) == wanted


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
    promised = {
        (series["metric"]["service"], series["metric"]["namespace"]): float(series["value"][1])
        for series in query(get, PROMISE)
    }
    assert promised == {
        (name, one["namespace"]): pytest.approx(one["slo"]["availability"] / 100) for name, one in definitions.items()
    }
    found = get("alertmanagers")["activeAlertmanagers"]
    assert [one["url"] for one in found] == ["http://alertmanager.monitoring.svc:9093/api/v2/alerts"]


def test_nothing_fires_while_all_is_well(get: Any, pods: Pods) -> None:
    def firing() -> list[str]:
        alerts = [alert["labels"] for alert in get("alerts")["alerts"] if alert["state"] == "firing"]
        return [str(labels) for labels in alerts if labels["alertname"] != "Watchdog"]

    assert pods.eventually(firing, []) == []


def test_the_watchdog_is_there(get: Any) -> None:
    found = [alert for alert in get("alerts")["alerts"] if alert["labels"]["alertname"] == "Watchdog"]
    assert [alert["state"] for alert in found] == ["firing"]


def test_every_metric_that_a_rule_names_exists(get: Any, pods: Pods) -> None:
    """A wrong name would be a rule that never fires. absent.yml has those whose exporter cannot run in the lab."""
    absent = yaml.safe_load((Path(__file__).with_name("absent.yml")).read_text(encoding="utf-8"))
    rules = [rule for group in get("rules")["groups"] for rule in group["rules"]]
    named = set().union(*(alert_table.metrics(rule["query"]) for rule in rules))
    assert len(named) > 50

    def missing() -> list[str]:
        # Those of which a sample was seen, and those that an exporter announces and has not counted yet.
        known = {*get("label/__name__/values"), *get("metadata")}
        return sorted(named - known - set(absent["counted_later"]))

    assert pods.eventually(missing, sorted(absent["never"])) == sorted(absent["never"])
    assert set(absent["counted_later"]) <= named


def test_its_own_tool_accepts_settings_and_rules(pods: Pods) -> None:
    # It checks the rules that the settings name as well.
    ended = pods.execute(NAMESPACE, POD, "promtool", "check", "config", SETTINGS, container="prometheus")
    assert ended.code == 0, ended.output + ended.errors


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_alert_fires_ends_and_stays_silent_when_it_should(pods: Pods, cluster: Any, path: Path) -> None:
    """As tests/unit/test_alerts.py, with the version that runs, and the rules that it has read."""
    applied = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/prometheus-rules")["data"][path.name]
    table = alert_table.read(path.read_text(encoding="utf-8"), path.name)
    rules = [rule for group in yaml.safe_load(applied)["groups"] for rule in group["rules"]]
    script = 'read -r cases; printf %s "$cases" >/tmp/cases.yml; promtool test rules /tmp/cases.yml'
    for cases in rule_tests(table["alerts"], rules, [f"/etc/prometheus/rules/{path.name}"]):
        ended = pods.execute(NAMESPACE, POD, "sh", "-c", script, line=cases, container="prometheus")
        assert ended.code == 0, (ended.output + ended.errors)[-3000:]


def test_it_may_list_pods_rules_and_nodes_and_nothing_else(pods: Pods, definitions: dict[str, Any]) -> None:
    may = partial(pods.may, "monitoring:prometheus")
    for namespace in {one["namespace"] for one in definitions.values()}:
        assert may("list", "pods", namespace)
        for verb, resource in (("get", "secrets"), ("list", "secrets"), ("delete", "pods"), ("update", "configmaps")):
            assert not may(verb, resource, namespace), f"{verb} {resource} in {namespace}"
        # Rules that others bring; what is secret stands in no ConfigMap.
        assert may("list", "configmaps", namespace)
    assert not may("list", "pods", "kube-system")
    assert not may("get", "secrets", NAMESPACE)
    # What it needs to ask kubelets.
    assert may("list", "nodes")
    assert may("get", "nodes/metrics")
    assert not may("get", "nodes/proxy")


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


def declared(name: str) -> dict[str, Any]:
    """Return a service of the test's own, as a playbook tells the role of it."""
    return {"name": name, "namespace": OWN, "slo": {"availability": 99.9, "latency_p95_ms": 500}}


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
            "alertmanager_secrets": {},
        }
        prometheus = {
            "prometheus_kubeconfig": self.kubeconfig,
            "prometheus_image": self.images["prometheus"],
            "prometheus_namespace": OWN,
            "prometheus_storage_size": "1Gi",
            "prometheus_watched_namespaces": [OWN],
            "prometheus_services": [declared("hello")],
            "prometheus_scrape_cluster": False,
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

    def groups(self, client: Client) -> dict[str, dict[str, Any]]:
        """Return the groups of rules that it has, by their names; none while it starts."""
        answer = client.call(ask, url=f"http://prometheus.{OWN}.svc:9090/api/v1/rules")
        return {group["name"]: group for group in answer["data"]["groups"]} if isinstance(answer, dict) else {}

    def refused(self, client: Client) -> list[str]:
        """Return the namespaces of the rules that were refused."""
        answer = client.call(
            ask, url=f"http://prometheus.{OWN}.svc:9090/api/v1/query?query=monitoring:refused_rules:info"
        )
        assert isinstance(answer, dict), answer
        return [series["metric"]["exported_namespace"] for series in answer["data"]["result"]]


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


def test_rules_that_somebody_brings_are_taken_while_it_runs(own: Installation, client: Client, pods: Pods) -> None:
    def containers() -> dict[str, str]:
        statuses = pods.core.read_namespaced_pod(POD, OWN).status.container_statuses
        return {status.name: status.container_id for status in statuses}

    # Prometheus is told to read, by the container beside it, and neither is started anew.
    started = containers()
    assert set(started) == {"prometheus", "rules"}

    def bring(name: str, expression: str) -> None:
        rule = {"alert": "Brought", "expr": expression, "labels": {"severity": "warning", "namespace": OWN}}
        data = {"alerts.yml": yaml.safe_dump({"groups": [{"name": name, "rules": [rule]}]})}
        labels = {"slipway/prometheus-rules": "true"}
        pods.core.create_namespaced_config_map(OWN, {"metadata": {"name": name, "labels": labels}, "data": data})

    bring("good", "vector(1)")
    brought = [{"alertname": "Brought", "namespace": OWN, "severity": "warning"}]
    assert pods.eventually(lambda: own.firing(client, "Brought"), brought) == brought
    bring("bad", "vector(")
    assert pods.eventually(lambda: own.refused(client), [OWN]) == [OWN]
    assert own.firing(client, "Brought") == brought
    pods.core.delete_namespaced_config_map("good", OWN)
    # Alertmanager takes an alert for over four minutes after it last heard of it.
    assert pods.eventually(lambda: own.groups(client).keys() & {"good", "refused"}, {"refused"}) == {"refused"}
    assert containers() == started


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
    own.apply(prometheus_services=[declared("hello"), declared("goodbye")])

    def missed() -> list[str]:
        groups = own.groups(client).values()
        return [r["labels"]["service"] for g in groups for r in g["rules"] if r["name"] == PROMISE]

    assert pods.eventually(missed, ["hello", "goodbye"]) == ["hello", "goodbye"]
