"""Loki as those who look for lines meet it: what is kept, where, for how long, and that a pod that dies loses none."""

from __future__ import annotations

import secrets as random
import time
from typing import Any

import pytest
import yaml
from cluster_client import Client, Pods
from confinement import confined, confinements
from leaks import leaked
from object_store import store
from telemetry import LOKI, Telemetry

NAMESPACE, POD, NAME = "monitoring", "loki-0", "app.kubernetes.io/name=loki"

pytestmark = [pytest.mark.explain(NAMESPACE)]


@pytest.fixture
def telemetry(client: Client) -> Telemetry:
    """Return the way to ask Loki."""
    return Telemetry(client)


@pytest.fixture
def settings(telemetry: Telemetry) -> dict[str, Any]:
    """Return the settings that Loki says it runs with."""
    status, text = telemetry.ask(f"{LOKI}/config")
    assert status == 200
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def pushed(telemetry: Telemetry, *lines: str) -> str:
    """Give Loki lines, by OTLP, and return the name of the service that they are of."""
    name = f"molecule-{random.token_hex(6)}"
    records = [{"timeUnixNano": str(time.time_ns()), "body": {"stringValue": line}} for line in lines]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]}
    content = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}
    status, text = telemetry.ask(f"{LOKI}/otlp/v1/logs", "POST", content)
    assert status in (200, 204), text
    return name


def test_lines_are_kept_as_long_as_the_inventory_says(settings: dict[str, Any], inventory: Any) -> None:
    assert settings["limits_config"]["retention_period"] == inventory.variable("logging_retention")
    assert settings["compactor"]["retention_enabled"] is True
    assert settings["compactor"]["delete_request_store"] == "s3"


def test_nobody_ends_them_sooner(settings: dict[str, Any], telemetry: Telemetry) -> None:
    assert settings["limits_config"]["deletion_mode"] == "disabled"
    status, _ = telemetry.ask(f"{LOKI}/loki/api/v1/delete?query=%7Bservice_name%3D%22api%22%7D&start=0", "POST")
    assert status >= 400


def test_it_has_the_schema_of_today(settings: dict[str, Any]) -> None:
    [schema] = settings["schema_config"]["configs"]
    assert (schema["schema"], schema["store"], schema["object_store"]) == ("v13", "tsdb", "s3")
    assert settings["analytics"]["reporting_enabled"] is False


def test_lines_are_objects_of_the_platforms_store_under_its_own_key(
    telemetry: Telemetry, client: Client, pods: Pods, ca: str, secrets: dict[str, Any]
) -> None:
    pushed(telemetry, "of the object store")

    def objects() -> list[str]:
        [names] = client.call(
            store,
            endpoint="minio.infrastructure.svc:9000",
            ca=ca,
            key=secrets["loki_keys"],
            steps=[["list all", "logs", "fake"]],
        )
        return str(names).split()

    before = set(objects())
    status, text = telemetry.ask(f"{LOKI}/flush", "POST")
    assert status == 204, text
    assert pods.eventually(lambda: bool(set(objects()) - before), True), "no new object"
    refused = client.call(
        store,
        endpoint="minio.infrastructure.svc:9000",
        ca=ca,
        key=secrets["loki_keys"],
        steps=[["list", "images"]],
    )
    assert refused == ["AccessDenied"]


def test_lines_outlive_the_pod(telemetry: Telemetry, pods: Pods) -> None:
    name = pushed(telemetry, "before", "and after")
    killed = pods.core.read_namespaced_pod(POD, NAMESPACE).metadata.uid
    pods.core.delete_namespaced_pod(POD, NAMESPACE, grace_period_seconds=0)
    pods.wait_ready(NAMESPACE, POD, other_than=killed)

    def seen() -> list[str]:
        return sorted(line for _, line in telemetry.lines(f'{{service_name="{name}"}}'))

    assert pods.eventually(seen, ["and after", "before"]) == ["and after", "before"]


def test_it_tells_prometheus_how_it_is(telemetry: Telemetry) -> None:
    status, text = telemetry.ask(f"{LOKI}/metrics")
    assert status == 200
    assert "loki_request_duration_seconds_count{" in text


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10007))


def test_no_secret_is_in_its_specification(cluster: Any, secrets: dict[str, Any], telemetry: Telemetry) -> None:
    shown = str(cluster.items(f"/api/v1/namespaces/{NAMESPACE}/pods"))
    shown += str(cluster.items(f"/api/v1/namespaces/{NAMESPACE}/configmaps"))
    shown += telemetry.ask(f"{LOKI}/config")[1]
    assert leaked(secrets, shown) == []
