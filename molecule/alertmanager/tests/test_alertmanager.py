"""Alertmanager as Prometheus, an operator and its receivers meet it. Receivers, silences and restarts are tried on a
second installation, in a namespace of its own. That a real alert gets here: molecule/prometheus."""

from __future__ import annotations

import secrets as random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alert_sink import Sink
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Inventory, Run, apply_role

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


def alert(name: str, seconds: int = 600, **labels: str) -> dict[str, Any]:
    """Return an alert that lasts for some seconds, or is over when they are negative."""
    now = datetime.now(UTC)
    return {
        "labels": {"alertname": name, "severity": "critical", **labels},
        "annotations": {
            "summary": f"{name} is only a test",
            "runbook_url": f"docs/runbooks/test.md#{name}",
            "dashboard": f"/d/{name}",
        },
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


def test_it_tells_whom_the_inventory_names(client: Client, inventory: Inventory) -> None:
    given = inventory.variable("alertmanager_receivers")
    # What an inventory leaves out is the role's default, which names nobody.
    names = [receiver["name"] for receiver in given] if isinstance(given, list) else []
    status, found = client.call(call, url=f"{URL}/api/v2/receivers")
    assert (status, [receiver["name"] for receiver in found]) == (200, ["none", *names])


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
    """A second Alertmanager, which tells a sink."""

    url = f"http://alertmanager.{OWN}.svc:9093"

    def __init__(self, state: Path, image: str, sink: Sink) -> None:
        self.sink = sink
        self.variables: dict[str, Any] = {
            "alertmanager_receivers": [
                {"name": "sre", "slack": {}},
                {"name": "dba", "email": {"to": "dba@mycompany.com"}, "webhook": {}},
            ],
            "alertmanager_routes": [{"receiver": "dba", "matchers": ['alertname=~"Postgres.*"']}],
            "alertmanager_smtp": {"host": sink.mail, "from": "alerts@mycompany.com", "tls": False},
            "alertmanager_deadman": True,
            "alertmanager_secrets": {
                "sre_slack_url": f"{sink.web}/slack",
                "dba_webhook_url": f"{sink.web}/webhook",
                "deadman_url": f"{sink.web}/deadman",
            },
            "alertmanager_group_wait": "1s",
            "alertmanager_group_interval": "5s",
            "alertmanager_kubeconfig": str(state / "kubeconfig"),
            "alertmanager_image": image,
            "alertmanager_namespace": OWN,
        }

    def apply(self, *arguments: str) -> Run:
        return apply_role("alertmanager", *arguments, variables=self.variables)


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path, service_image: str) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    image = pods.core.read_namespaced_pod("alertmanager-0", NAMESPACE).spec.containers[0].image
    with pods.namespace(OWN):
        installation = Installation(state, image, Sink(pods, OWN, service_image))
        check = installation.apply("--check")
        assert check.code == 0, check.output
        assert pods.core.list_namespaced_service(OWN).items == []
        assert "/deadman" not in check.output, "an address that is a secret was shown"
        run = installation.apply()
        assert run.code == 0, run.output
        yield installation


def test_a_second_run_changes_nothing(own: Installation) -> None:
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def post(own: Installation, client: Client, *alerts: dict[str, Any]) -> None:
    assert client.call(call, url=f"{own.url}/api/v2/alerts", content=list(alerts)) == [200, None]


def told(own: Installation, client: Client, to: Any, word: str) -> list[dict[str, Any]]:
    """Return the messages to somebody in which a word stands."""
    return [m for m in own.sink.messages(client) if m["to"] == to and word in str(m)]


def test_slack_is_told_what_where_and_that_it_is_over(own: Installation, client: Client, pods: Pods) -> None:
    name = f"Molecule{random.token_hex(4)}"
    post(own, client, alert(name))
    assert pods.eventually(lambda: len(told(own, client, "/slack", name)), 1, seconds=30) == 1
    post(own, client, alert(name, seconds=-1))
    assert pods.eventually(lambda: len(told(own, client, "/slack", name)), 2, seconds=30) == 2
    fired, over = (message["body"] for message in told(own, client, "/slack", name))
    assert fired["channel"] == "#sre-alerts"
    [shown] = fired["attachments"]
    assert shown["title"] == f"critical: {name} (1)"
    assert shown["title_link"] == f"docs/runbooks/test.md#{name}"
    assert shown["text"].split("\n")[:4] == [
        f"*{name} is only a test*",
        "",
        f"docs/runbooks/test.md#{name}",
        f"/d/{name}",
    ]
    assert over["attachments"][0]["title"] == f"Over: {name} (1)"


def test_mail_and_a_webhook_are_told_what_their_route_takes(own: Installation, client: Client, pods: Pods) -> None:
    name, address = f"Postgres{random.token_hex(4)}", ["dba@mycompany.com"]
    post(own, client, alert(name))
    assert pods.eventually(lambda: len(told(own, client, address, name)), 1, seconds=30) == 1
    post(own, client, alert(name, seconds=-1))
    assert pods.eventually(lambda: len(told(own, client, address, name)), 2, seconds=30) == 2
    assert [mail["subject"] for mail in told(own, client, address, name)] == [
        f"critical: {name} (1)",
        f"Over: {name} (1)",
    ]
    assert f"docs/runbooks/test.md#{name}" in told(own, client, address, name)[0]["body"]
    assert [m["body"]["status"] for m in told(own, client, "/webhook", name)] == ["firing", "resolved"]
    assert told(own, client, "/slack", name) == []


def test_a_dead_mans_switch_hears_the_watchdog_and_nothing_else(own: Installation, client: Client, pods: Pods) -> None:
    post(own, client, alert("Watchdog"))
    assert pods.eventually(lambda: len(told(own, client, "/deadman", "Watchdog")), 1, seconds=30) == 1
    assert told(own, client, "/slack", "Watchdog") == []
    assert [m for m in own.sink.messages(client) if m["to"] == "/deadman" and "Watchdog" not in str(m)] == []


def test_what_follows_from_a_worse_alert_is_left_out(own: Installation, client: Client, pods: Pods) -> None:
    shop, till = (("shops", "shop"), ("shops", "till"))
    down, failing, other = [
        alert(name, namespace=namespace, service=service)
        for name, (namespace, service) in (("ServiceDown", shop), ("HighErrorRate", shop), ("HighErrorRate", till))
    ]
    # What is left out is decided while a message is made: here at once, and not after half a minute as on the platform.
    post(own, client, down)
    assert pods.eventually(lambda: len(told(own, client, "/slack", "ServiceDown")), 1, seconds=30) == 1
    post(own, client, failing, other)
    assert pods.eventually(lambda: len(told(own, client, "/slack", "HighErrorRate")), 1, seconds=30) == 1
    states = firing(client, own.url, "HighErrorRate")
    assert sorted(states) == ["active", "suppressed"]
    [message] = told(own, client, "/slack", "HighErrorRate")
    assert message["body"]["attachments"][0]["title"] == "critical: HighErrorRate (1)"


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=ServiceDown", "severity=critical"], "sre"),
        (["alertname=PostgresDown", "severity=critical"], "dba"),
        (["alertname=Watchdog", "severity=none"], "deadman"),
    ],
    ids=["sre", "dba", "deadman"],
)
def test_its_own_tool_says_whom_an_alert_goes_to(
    own: Installation, pods: Pods, labels: list[str], receiver: str
) -> None:
    config = "--config.file=/etc/alertmanager/alertmanager.yml"
    arguments = ("amtool", "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels)
    ended = pods.execute(OWN, "alertmanager-0", *arguments)
    assert ended.code == 0, ended.output + ended.errors
    checked = pods.execute(OWN, "alertmanager-0", "amtool", "check-config", "/etc/alertmanager/alertmanager.yml")
    assert checked.code == 0, checked.output + checked.errors


def test_a_receiver_without_its_secret_is_refused(own: Installation) -> None:
    run = apply_role("alertmanager", variables=own.variables | {"alertmanager_secrets": {"sre_slack_url": "x"}})
    assert run.code != 0
    assert "secrets.yml: alert_secrets.dba_webhook_url: found nothing, wanted the URL that takes alerts" in run.output


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
