"""Alertmanager as Prometheus and an operator meet it. Silences and restarts are tried on a second installation, in a
namespace of its own. That a real alert gets here: molecule/prometheus."""

from __future__ import annotations

import secrets as random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Run, apply_role

NAMESPACE, OWN = "monitoring", "molecule-alertmanager-own"
NAME = "app.kubernetes.io/name=alertmanager"
URL = "http://alertmanager.monitoring.svc:9093"

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


def call(url: str, content: Any = None) -> tuple[int, Any]:
    """In the cluster: status and JSON of an answer; with content by POST."""
    import json
    import urllib.error
    import urllib.request

    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body else None
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def alert(name: str, seconds: int = 600) -> dict[str, Any]:
    """Return an alert that lasts for some seconds, or is over when they are negative."""
    now = datetime.now(UTC)
    return {
        "labels": {"alertname": name, "severity": "critical"},
        "annotations": {"summary": "only a test"},
        "startsAt": (now - timedelta(hours=1)).isoformat(),
        "endsAt": (now + timedelta(seconds=seconds)).isoformat(),
    }


def firing(client: Client, url: str, name: str) -> list[str]:
    """Return the states of the alerts of a name that Alertmanager shows."""
    status, found = client.call(call, url=f"{url}/api/v2/alerts?filter=alertname%3D{name}")
    assert status == 200, found
    return [one["status"]["state"] for one in found]


# --- the platform's


def test_an_alert_is_visible_until_it_is_over(client: Client, pods: Pods) -> None:
    name = f"Molecule{random.token_hex(4)}"
    assert client.call(call, url=f"{URL}/api/v2/alerts", content=[alert(name)])[0] == 200
    assert pods.eventually(lambda: firing(client, URL, name), ["active"]) == ["active"]
    assert client.call(call, url=f"{URL}/api/v2/alerts", content=[alert(name, seconds=-1)])[0] == 200
    assert pods.eventually(lambda: firing(client, URL, name), []) == []


def test_it_tells_nobody_and_says_so(client: Client) -> None:
    status, found = client.call(call, url=f"{URL}/api/v2/receivers")
    assert (status, found) == (200, [{"name": "none"}])


def test_its_own_tool_accepts_its_settings(pods: Pods) -> None:
    ended = pods.execute(NAMESPACE, "alertmanager-0", "amtool", "check-config", "/etc/alertmanager/alertmanager.yml")
    assert ended.code == 0, ended.output + ended.errors


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10006))


def test_it_is_not_reachable_from_outside(cluster: Any) -> None:
    ingresses = cluster.items(f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses")
    services = cluster.items(f"/api/v1/namespaces/{NAMESPACE}/services")
    assert ingresses == []
    assert {service["spec"]["type"] for service in services} == {"ClusterIP"}


# --- one of the test's own


class Installation:
    """A second Alertmanager with the role's own defaults."""

    url = f"http://alertmanager.{OWN}.svc:9093"

    def __init__(self, state: Path, image: str) -> None:
        self.variables = {
            "alertmanager_kubeconfig": str(state / "kubeconfig"),
            "alertmanager_image": image,
            "alertmanager_namespace": OWN,
        }

    def apply(self, *arguments: str) -> Run:
        return apply_role("alertmanager", *arguments, variables=self.variables)


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    image = pods.core.read_namespaced_pod("alertmanager-0", NAMESPACE).spec.containers[0].image
    with pods.namespace(OWN):
        installation = Installation(state, image)
        check = installation.apply("--check")
        assert check.code == 0, check.output
        assert pods.core.list_namespaced_service(OWN).items == []
        run = installation.apply()
        assert run.code == 0, run.output
        yield installation


def test_a_second_run_changes_nothing(own: Installation) -> None:
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_a_silence_outlives_the_pod(own: Installation, client: Client, pods: Pods) -> None:
    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "alertname", "value": "Quiet", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "molecule",
        "comment": "only a test",
    }
    assert pods.eventually(lambda: client.call(call, url=f"{own.url}/api/v2/silences")[0], 200) == 200
    status, made = client.call(call, url=f"{own.url}/api/v2/silences", content=silence)
    assert status == 200, made
    stopped = pods.core.read_namespaced_pod("alertmanager-0", OWN).metadata.uid
    pods.core.delete_namespaced_pod("alertmanager-0", OWN)
    pods.wait_ready(OWN, "alertmanager-0", other_than=stopped)

    def known() -> list[str]:
        status, found = client.call(call, url=f"{own.url}/api/v2/silences")
        return [one["id"] for one in found] if status == 200 else []

    assert pods.eventually(known, [made["silenceID"]]) == [made["silenceID"]]
    assert client.call(call, url=f"{own.url}/api/v2/alerts", content=[alert("Quiet")])[0] == 200
    assert pods.eventually(lambda: firing(client, own.url, "Quiet"), ["suppressed"]) == ["suppressed"]
