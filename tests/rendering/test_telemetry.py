"""The roles logging, tracing and otel_collector by themselves: what goes where, what waits where, who may see what.

That the programs read these settings, and what they do with them, is shown on the lab (molecule/logging,
molecule/tracing, molecule/otel_collector).
"""

from __future__ import annotations

import base64
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.rendering.conftest import KUBERNETES, Rendering, pick

LOGGING = ("secret.yml.j2", "service.yml.j2", "config.yml.j2", "statefulset.yml.j2")
TRACING = ("service.yml.j2", "config.yml.j2", "statefulset.yml.j2", "deployment.yml.j2")
COLLECTOR = ("rbac.yml.j2", "service.yml.j2", "config.yml.j2", "daemonset.yml.j2")
SAMPLER = "otel-sampler.monitoring.svc:4317"


def logging(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "logging_image": "slipway.local/loki:test",
        "logging_s3_endpoint": "https://minio.infrastructure.svc:9000",
        "logging_s3_access_key": "AKEY",
        "logging_s3_secret_key": "canary-of-the-key",
        "logging_ca_certificate": "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n",
    }
    return list(render("logging", *LOGGING, **given | variables))


def tracing(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {"tracing_image": "slipway.local/jaeger:test", "tracing_sampler_image": "slipway.local/otel-collector:test"}
    return list(render("tracing", *TRACING, **given | variables))


def collector(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "otel_collector_image": "slipway.local/otel-collector:test",
        "otel_collector_traces_endpoint": SAMPLER,
    }
    return list(render("otel_collector", *COLLECTOR, **given | variables))


def settings(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    data = pick(documents, "ConfigMap", name)["data"]
    [text] = [text for file, text in data.items() if file.endswith(".yml")]
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize(
    ("role", "variables"),
    [
        (logging, {}),
        (logging, {"logging_storage_class": "fast", "logging_ca_certificate": ""}),
        (tracing, {}),
        (tracing, {"tracing_storage_class": "fast"}),
        (collector, {}),
        (collector, {"otel_collector_traces_endpoint": ""}),
    ],
)
def test_every_document_is_valid(render: Any, role: Any, variables: dict[str, Any]) -> None:
    for document in role(render, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "slipway"


@pytest.mark.parametrize(
    ("role", "name"),
    [(collector, "otel-collector"), (tracing, "otel-sampler"), (tracing, "jaeger")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pipeline_has_what_it_names_and_nothing_is_left_over(render: Any, role: Any, name: str) -> None:
    found = settings(role(render), name)
    pipelines = found["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert {part for pipeline in pipelines for part in pipeline.get(kind, [])} == set(found[kind])
    assert set(found["service"]["extensions"]) == set(found["extensions"])


# --- logging


def test_keys_are_in_the_secret_and_nowhere_else(render: Any) -> None:
    documents = logging(render)
    kept = base64.b64decode(pick(documents, "Secret", "loki")["data"]["credentials"]).decode()
    assert kept == "[default]\naws_access_key_id = AKEY\naws_secret_access_key = canary-of-the-key\n"
    assert "canary-of-the-key" not in yaml.safe_dump([d for d in documents if d["kind"] != "Secret"])


@pytest.mark.parametrize(
    ("endpoint", "authority", "insecure"),
    [
        ("https://minio.infrastructure.svc:9000", True, False),
        ("https://s3.mycompany.com", False, False),
        ("http://10.20.0.9:9000", False, True),
    ],
)
def test_lines_go_to_the_object_store_that_is_named(
    render: Any, endpoint: str, authority: bool, insecure: bool
) -> None:
    certificate = "-----BEGIN CERTIFICATE-----" if authority else ""
    documents = logging(render, logging_s3_endpoint=endpoint, logging_ca_certificate=certificate)
    store = settings(documents, "loki")["storage_config"]["aws"]
    assert (store["endpoint"], store["bucketnames"], store["insecure"]) == (endpoint, "logs", insecure)
    assert ("http_config" in store) is authority
    assert ("ca.crt" in pick(documents, "ConfigMap", "loki")["data"]) is authority


def test_lines_end_after_their_time_and_by_nothing_else(render: Any) -> None:
    found = settings(logging(render, logging_retention="30d"), "loki")
    assert found["limits_config"]["retention_period"] == "30d"
    assert found["limits_config"]["deletion_mode"] == "disabled"
    assert found["compactor"]["retention_enabled"] is True
    # Loki does not start without it.
    assert found["compactor"]["delete_request_store"] == "s3"


@pytest.mark.parametrize(
    "change",
    [
        {"logging_retention": "2d"},
        {"logging_s3_secret_key": "another"},
        {"logging_ca_certificate": "another"},
        {"logging_image_revision": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_loki_reads_at_its_start_restarts_it(render: Any, change: dict[str, Any]) -> None:
    before, after = (pick(d, "StatefulSet", "loki") for d in (logging(render), logging(render, **change)))
    assert before["spec"]["template"] != after["spec"]["template"]


# --- tracing


def test_what_failed_or_was_slow_is_always_kept(render: Any) -> None:
    found = settings(tracing(render, tracing_kept_percent=2.5, tracing_slow_seconds=0.25), "otel-sampler")
    policies = {policy["name"]: policy for policy in found["processors"]["tail_sampling"]["policies"]}
    assert policies["failed"]["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["slow"]["latency"] == {"threshold_ms": 250}
    assert policies["share"]["probabilistic"] == {"sampling_percentage": 2.5}


def test_one_sampler_sees_whole_traces(render: Any) -> None:
    spec = pick(tracing(render), "Deployment", "otel-sampler")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_traces_are_on_a_volume_for_as_long_as_declared(render: Any) -> None:
    documents = tracing(render, tracing_retention="3d", tracing_storage_size="20Gi")
    store = settings(documents, "jaeger")["extensions"]["jaeger_storage"]["backends"]["badger"]["badger"]
    assert (store["ephemeral"], store["ttl"]) == (False, {"spans": "72h"})
    jaeger = pick(documents, "StatefulSet", "jaeger")["spec"]
    [claim] = jaeger["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    [mount] = [m for m in jaeger["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "data"]
    assert all(path.startswith(mount["mountPath"] + "/") for path in store["directories"].values())


@pytest.mark.parametrize(
    "change", [{"tracing_kept_percent": 1}, {"tracing_sampler_image_revision": "another"}], ids=str
)
def test_what_the_sampler_reads_at_its_start_restarts_it(render: Any, change: dict[str, Any]) -> None:
    before, after = (pick(d, "Deployment", "otel-sampler") for d in (tracing(render), tracing(render, **change)))
    assert before["spec"]["template"] != after["spec"]["template"]


# --- otel_collector


def test_lines_wait_on_disk_up_to_the_buffer_and_are_never_given_up(render: Any) -> None:
    found = settings(collector(render, otel_collector_logs_buffer="1Gi"), "otel-collector")
    exporter = found["exporters"]["otlp_http/logs"]
    queue = exporter["sending_queue"]
    assert (queue["storage"], queue["sizer"], queue["queue_size"]) == ("file_storage/queue", "bytes", 2**30)
    assert queue["block_on_overflow"] is True
    assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    reader = found["receivers"]["file_log"]
    assert reader["storage"] == "file_storage/offsets"
    assert reader["retry_on_failure"] == {"enabled": True, "max_elapsed_time": "0s"}


def test_spans_wait_in_memory_and_not_for_ever(render: Any) -> None:
    exporter = settings(collector(render), "otel-collector")["exporters"]["otlp_grpc/traces"]
    assert exporter["endpoint"] == SAMPLER
    assert "storage" not in exporter["sending_queue"]
    assert exporter["sending_queue"]["queue_size"] == 16 * 2**20
    assert exporter["retry_on_failure"]["max_elapsed_time"] == "60s"


def test_without_traces_it_takes_none(render: Any) -> None:
    documents = collector(render, otel_collector_traces_endpoint="")
    assert set(settings(documents, "otel-collector")["receivers"]) == {"file_log"}
    assert [d for d in documents if d["kind"] == "Service"] == []


def test_its_own_lines_are_not_sent(render: Any) -> None:
    documents = collector(render, otel_collector_namespace="elsewhere")
    excluded = settings(documents, "otel-collector")["receivers"]["file_log"]["exclude"]
    assert "/var/log/pods/elsewhere_otel-collector-*/*/*" in excluded


def test_two_installations_share_no_state(render: Any) -> None:
    paths = set()
    for namespace in ("otel-collector", "elsewhere"):
        documents = collector(render, otel_collector_namespace=namespace)
        volumes = pick(documents, "DaemonSet", "otel-collector")["spec"]["template"]["spec"]["volumes"]
        paths |= {volume["hostPath"]["path"] for volume in volumes if volume["name"] == "state"}
        assert pick(documents, "ClusterRole", f"slipway-{namespace}")["rules"] == [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
        ]
    assert len(paths) == 2


def test_spans_stay_on_their_node(render: Any) -> None:
    service = pick(collector(render), "Service", "otel-collector")
    assert service["spec"]["internalTrafficPolicy"] == "Local"


# --- as the playbooks wire them


def test_services_and_ingress_send_to_the_collectors(rendering: Rendering) -> None:
    address = "http://otel-collector.otel-collector.svc:4318"
    service = rendering.find("Service", "otel-collector", "otel-collector")
    assert service and {port["port"] for port in service["spec"]["ports"]} == {4317, 4318}
    [api] = [d for d in rendering.of_kind("Deployment") if d["metadata"]["name"] == "api"]
    container = api["spec"]["template"]["spec"]["containers"][0]
    names = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
    for source in container.get("envFrom", []):
        named = rendering.find("ConfigMap", "api", source["configMapRef"]["name"])
        names |= named["data"] if named else {}
    assert names["OTEL_EXPORTER_OTLP_ENDPOINT"] == address
    traefik = rendering.find("ConfigMap", "ingress-nginx", "traefik")
    if traefik:
        tracing = yaml.safe_load(traefik["data"]["traefik.yml"])["tracing"]
        assert tracing["otlp"]["http"]["endpoint"] == f"{address}/v1/traces"


def test_the_collectors_send_to_what_is_there(rendering: Rendering) -> None:
    found = rendering.find("ConfigMap", "otel-collector", "otel-collector")
    assert found
    exporters = yaml.safe_load(found["data"]["collector.yml"])["exporters"]
    for exporter in exporters.values():
        host, _, port = exporter["endpoint"].removeprefix("http://").partition("/")[0].partition(":")
        name, namespace, _ = host.split(".")
        service = rendering.find("Service", namespace, name)
        assert service and int(port) in {one["port"] for one in service["spec"]["ports"]}, exporter["endpoint"]
