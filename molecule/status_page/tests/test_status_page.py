"""The status page as its reader meets it, through the ingress, and beside it `make status`, which says the same.

One without Prometheus and Alertmanager is a second installation, in a namespace of its own.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import secrets as random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cluster_access import Cluster
from cluster_client import Pods
from confinement import confined, confinements
from controller import Inventory, Run, apply_role, python
from https_client import Answer, ask
from kubernetes.client import ApiException, RbacAuthorizationV1Api

NAMESPACE, OWN = "status", "molecule-status-page-own"
NAME = "app.kubernetes.io/name=status-page"
EVIL = "<script>alert(1)</script>"

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


def words(answer: bytes | str) -> str:
    """Return what a page says, without tags and more than one space."""
    page = answer.decode() if isinstance(answer, bytes) else answer
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"status:{password}".encode()).decode()}


@dataclass(frozen=True)
class Reader:
    """Somebody in front of a browser."""

    address: str
    host: str
    trust: ssl.SSLContext
    password: str

    def open(self, path: str = "/", **headers: str) -> Answer:
        return ask(self.address, self.host, path, self.trust, headers=headers)

    def page(self) -> str:
        answer = self.open(**basic(self.password))
        assert answer.status == 200, answer
        return answer.body.decode()

    def words(self) -> str:
        return words(self.page())


@pytest.fixture(scope="module")
def reader(inventory: Inventory, domain: str, trust: ssl.SSLContext, secrets: dict[str, Any], pods: Pods) -> Reader:
    found = Reader(inventory.address("agent-1"), f"status.{domain}", trust, secrets["status_page_password"])
    # Who ran this a moment ago has guessed from the same address.
    assert pods.eventually(lambda: found.open(**basic(found.password)).status, 200) == 200
    return found


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster) -> Callable[[str], list[tuple[dict[str, str], float]]]:
    """Return a function that asks Prometheus for the series of an expression."""

    def query(expression: str) -> list[tuple[dict[str, str], float]]:
        answer = cluster.proxied("monitoring", "prometheus", 9090, f"/api/v1/query?query={quote(expression)}")
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    return query


# --- the platform's


def test_nobody_gets_in_without_the_password(reader: Reader) -> None:
    for headers in ({}, basic("wrong"), {"Authorization": f"Bearer {reader.password}"}):
        answer = reader.open(**headers)
        assert (answer.status, answer.body) == (401, b"Unauthorized\n"), headers
        seen = {name.lower(): value for name, value in answer.headers.items()}
        assert seen["www-authenticate"] == 'Basic realm="status", charset="UTF-8"'


def test_its_health_and_metrics_stay_inside(reader: Reader) -> None:
    for path in ("/metrics", "/health/live", "/health/ready"):
        assert reader.open(path).status == 401
        assert reader.open(path, **basic(reader.password)).status == 404


def test_it_shows_all_nodes_and_services(reader: Reader, inventory: Inventory, definitions: dict[str, Any]) -> None:
    said = reader.words()
    for host in inventory.hosts():
        assert re.search(rf"{host} ✓ ready v\d", said), said
    for name, one in definitions.items():
        assert f"{name} {one['namespace']} ✓ ready" in said, said
        assert re.search(rf"{name} {one['slo']['availability']:g} % . (-?\d|no requests counted yet|used up)", said), (
            said
        )
    assert re.search(r"as of .* UTC , \d+ s old when you asked", said), said


def test_it_shows_the_backups_and_certificates_that_prometheus_knows(
    reader: Reader, prometheus: Callable[[str], list[tuple[dict[str, str], float]]], pods: Pods
) -> None:
    def shown() -> list[str]:
        said, missing = reader.words(), []
        for word, metric in (("made", "completed"), ("shown to restore", "verified")):
            [(_, value)] = prometheus(f"max(backup_last_{metric}_timestamp)")
            when = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC" if value else "never"
            if not re.search(rf"Last one {word} . [^|]*{when}", said):
                missing.append(f"{word}: {when}")
        for labels, ends in prometheus("certmanager_certificate_expiration_timestamp_seconds"):
            when = f"{datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M:%S} UTC"
            if not re.search(rf"{labels['name']} {labels['exported_namespace']} . \d+ days left {when}", said):
                missing.append(f"{labels}: {when}")
        return missing

    # A backup may end between two looks.
    assert pods.eventually(shown, []) == []
    assert "public-certificate ingress-nginx ✓" in reader.words()


@pytest.fixture
def alert(cluster: Cluster, pods: Pods, client: Any) -> Iterator[str]:
    """Return the name of a critical alert that is open while the test runs."""
    name = f"Molecule{random.token_hex(4)}"

    def tell(seconds: int) -> None:
        now = datetime.now(UTC)
        one = {
            "labels": {"alertname": name, "severity": "critical", "service": EVIL},
            "annotations": {"summary": f"only a test {EVIL}", "runbook_url": "javascript:alert(1)"},
            "startsAt": (now - timedelta(minutes=5)).isoformat(),
            "endsAt": (now + timedelta(seconds=seconds)).isoformat(),
        }
        assert client.call(post, url="http://alertmanager.monitoring.svc:9093/api/v2/alerts", content=[one]) == 200

    tell(600)
    yield name
    tell(-1)


def post(url: str, content: Any) -> int:
    """In the cluster: the status of an answer."""
    import json
    import urllib.request

    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def test_an_open_alert_is_shown_on_the_page_and_by_make_status(reader: Reader, alert: str, pods: Pods) -> None:
    line = f"{alert} javascript:alert(1) only a test {EVIL} service={EVIL} ✗ critical 5 min"
    assert pods.eventually(lambda: line in reader.words(), True), reader.words()
    page = reader.page()
    assert EVIL not in page
    assert 'href="javascript' not in page
    assert re.search(r"Not well .*\d+ critical alerts? (is|are) open", words(page))
    run = python("scripts/status.py")
    assert run.code == 1, run.output
    [shown] = [row for row in run.output.splitlines() if alert in row]
    assert re.match(r"  critical +for 5 min", shown), shown
    assert shown.endswith(f"  {alert}: only a test {EVIL} (service={EVIL})"), shown


def test_an_alert_that_is_over_is_gone(reader: Reader, pods: Pods) -> None:
    """That of the test before."""
    assert pods.eventually(lambda: EVIL in reader.words(), False) is False
    assert "Watchdog" not in reader.words(), "it fires always, and is no news"


def test_make_status_says_the_same(reader: Reader, inventory: Inventory, definitions: dict[str, Any]) -> None:
    run = python("scripts/status.py")
    for host in inventory.hosts():
        assert re.search(rf"^  {host} +v\S+ +ready$", run.output, re.M), run.output
    for name, one in definitions.items():
        assert re.search(rf"^  {one['namespace']}/{name} +Deployment +ready$", run.output, re.M), run.output
        assert re.search(rf"^  {one['namespace']}/{name} +{one['slo']['availability']:g} %  ", run.output, re.M)
    for line in ("Nodes", "Workloads", "Backups of Postgres", "Certificates", "Open alerts"):
        assert line in run.output.splitlines(), run.output
    assert re.search(r"^  ingress-nginx/public-certificate +\d+ days left", run.output, re.M), run.output
    assert "not known" not in run.output
    last = run.output.splitlines()[-1]
    assert (run.code, last.partition(":")[0]) in ((0, "All is well"), (0, "Worth a look"), (1, "Not well")), last


def test_it_may_list_what_it_shows_and_nothing_else(pods: Pods) -> None:
    may = partial(pods.may, "status:status-page", namespace="monitoring")
    assert may("list", "nodes")
    assert all(may("list", kind, group="apps") for kind in ("deployments", "statefulsets", "daemonsets"))
    for resource in ("secrets", "configmaps", "pods", "pods/exec", "services/proxy", "nodes/proxy"):
        assert not any(may(verb, resource) for verb in ("get", "list", "create", "delete")), resource
    assert not any(may(verb, "deployments", group="apps") for verb in ("create", "patch", "delete"))


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10007))


# --- one of the test's own, whose Prometheus and Alertmanager are not there


class Installation:
    """A second page, reached without the ingress."""

    password = random.token_hex(16)

    def __init__(self, state: Path, image: str, pods: Pods) -> None:
        self.pods = pods
        self.variables: dict[str, Any] = {
            "status_page_kubeconfig": str(state / "kubeconfig"),
            "status_page_image": image,
            "status_page_namespace": OWN,
            "status_page_host": "own.status.invalid",
            "status_page_name": "own.invalid",
            "status_page_password": self.password,
            "status_page_prometheus_url": f"http://prometheus.{OWN}.svc:9090",
            "status_page_alertmanager_url": f"http://alertmanager.{OWN}.svc:9093",
        }

    def apply(self, *arguments: str) -> Run:
        return apply_role("status_page", *arguments, variables=self.variables)

    def open(self, **headers: str) -> tuple[int, str]:
        [pod] = self.pods.names(OWN, NAME)
        with self.pods.forward(OWN, pod, 8080) as address:
            connection = http.client.HTTPConnection(address, timeout=30)
            with contextlib.closing(connection):
                connection.request("GET", "/", headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    [running, *_] = pods.names(NAMESPACE, NAME)
    image = pods.core.read_namespaced_pod(running, NAMESPACE).spec.containers[0].image
    rights: Any = RbacAuthorizationV1Api(pods.api)
    with pods.namespace(OWN):
        try:
            installation = Installation(state, image, pods)
            check = installation.apply("--check")
            assert check.code == 0, check.output
            assert pods.core.list_namespaced_service(OWN).items == []
            run = installation.apply()
            assert run.code == 0, run.output
            assert installation.password not in check.output + run.output
            yield installation
        finally:
            # These are in no namespace.
            for delete in (rights.delete_cluster_role_binding, rights.delete_cluster_role):
                with contextlib.suppress(ApiException):
                    delete(f"slipway-{OWN}-page")


def test_a_second_run_changes_nothing(own: Installation) -> None:
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_without_prometheus_it_says_so_and_shows_the_nodes(own: Installation, inventory: Inventory) -> None:
    status, page = own.open(**basic(own.password))
    assert status == 200, page
    said = words(page)
    for who in ("Prometheus", "Alertmanager"):
        assert re.search(rf"Not well .*{who} does not answer: \S+", said), said
    assert len(re.findall("✗ Not known: Prometheus does not answer", said)) == 3, said
    for host in inventory.hosts():
        assert f"{host} ✓ ready" in said
    assert "No alert is open" not in said


def test_its_password_is_its_own(own: Installation, reader: Reader) -> None:
    assert own.open(**basic(reader.password))[0] == 401
    assert reader.open(**basic(own.password)).status == 401


# --- at last, since the address of the tests has to wait after it


def test_who_guesses_has_to_wait_whatever_address_he_claims(reader: Reader) -> None:
    codes = []
    for number in range(20):
        claimed = {"X-Forwarded-For": f"203.0.113.{number}", "X-Real-Ip": f"203.0.113.{number}"}
        codes.append(reader.open(**basic("guess"), **claimed).status)
        if codes[-1] == 429:
            break
    assert codes[-1] == 429, codes
    assert reader.open(**basic(reader.password)).headers["Retry-After"] == "60"
