"""The roles prometheus and alertmanager by themselves: what they scrape, what they may see, and their rules.

That Prometheus itself reads settings and rules, and fires, is shown on the lab (molecule/prometheus).
"""

from __future__ import annotations

import base64
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography import x509

from tests.rendering.conftest import ROOT, Rendering, pick

VERSIONS = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
KUBERNETES = ".".join(str(VERSIONS["kubernetes_version"]).split(".")[:2])
PROMETHEUS = ("rbac.yml.j2", "service.yml.j2", "config.yml.j2", "statefulset.yml.j2")
ALERTMANAGER = ("service.yml.j2", "config.yml.j2", "statefulset.yml.j2")
SERVICES = [{"name": "shop", "namespace": "shops"}, {"name": "till", "namespace": "shops"}]


def prometheus(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "prometheus_image": "slipway.local/prometheus:test",
        "prometheus_services": SERVICES,
        "prometheus_watched_namespaces": ["monitoring", "shops"],
    }
    return list(render("prometheus", *PROMETHEUS, **given | variables))


def alertmanager(render: Any, **variables: Any) -> list[dict[str, Any]]:
    return list(
        render("alertmanager", *ALERTMANAGER, **{"alertmanager_image": "slipway.local/alertmanager:test"} | variables)
    )


def settings(documents: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(pick(documents, "ConfigMap", "prometheus")["data"]["prometheus.yml"])
    return found


def rules(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = pick(documents, "ConfigMap", "prometheus-rules")["data"]["services.yml"]
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(
    ("role", "variables"),
    [
        (prometheus, {}),
        (prometheus, {"prometheus_services": [], "prometheus_watched_namespaces": []}),
        (prometheus, {"prometheus_storage_class": "fast"}),
        (alertmanager, {}),
        (alertmanager, {"alertmanager_storage_class": "fast"}),
    ],
)
def test_every_document_is_valid(render: Any, role: Any, variables: dict[str, Any]) -> None:
    for document in role(render, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "slipway"


def test_it_may_list_pods_where_it_looks_and_nothing_else(render: Any) -> None:
    documents = prometheus(render)
    kinds = {document["kind"] for document in documents}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    roles = {d["metadata"]["namespace"]: d["rules"] for d in documents if d["kind"] == "Role"}
    pods = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    assert roles == {"monitoring": pods, "shops": pods}
    [job] = settings(documents)["scrape_configs"]
    assert job["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["monitoring", "shops"]}}]


def test_every_rule_says_how_bad_it_is_and_what_to_do(render: Any) -> None:
    found = rules(prometheus(render))
    assert [rule["alert"] for rule in found] == ["ServiceDown", "ServiceDown", "HighErrorRate"]
    for rule in found:
        assert rule["for"] == "1m"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} <= rule["annotations"].keys()
    assert [rule["labels"]["service"] for rule in found[:2]] == ["shop", "till"]


@pytest.mark.parametrize(
    "change",
    [
        {"prometheus_services": SERVICES[:1]},
        {"prometheus_interval": "30s"},
        {"prometheus_image_revision": "another"},
        {"prometheus_retention": "2d"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_prometheus_reads_at_its_start_restarts_it(render: Any, change: dict[str, Any]) -> None:
    before, after = (pick(d, "StatefulSet", "prometheus") for d in (prometheus(render), prometheus(render, **change)))
    assert before["spec"]["template"] != after["spec"]["template"]


def test_samples_leave_room_on_the_volume(render: Any) -> None:
    [container] = pick(prometheus(render, prometheus_storage_size="10Gi"), "StatefulSet", "prometheus")["spec"][
        "template"
    ]["spec"]["containers"]
    assert f"--storage.tsdb.retention.size={8 * 2**30}B" in container["args"]
    assert "--storage.tsdb.retention.time=15d" in container["args"]


def test_alertmanager_tells_nobody_and_keeps_alerts_visible(render: Any) -> None:
    text = pick(alertmanager(render), "ConfigMap", "alertmanager")["data"]["alertmanager.yml"]
    assert yaml.safe_load(text) == {
        "route": {"receiver": "none", "group_by": ["alertname"]},
        "receivers": [{"name": "none"}],
    }


def test_every_service_is_scraped_and_missed(rendering: Rendering) -> None:
    """The playbook's part: it watches where services run, and knows each by its name."""
    config = rendering.find("ConfigMap", "monitoring", "prometheus")
    rules_map = rendering.find("ConfigMap", "monitoring", "prometheus-rules")
    assert config and rules_map
    services = {
        (d["metadata"]["name"], d["metadata"]["namespace"])
        for d in rendering.of_kind("Deployment")
        if d["metadata"]["labels"]["app.kubernetes.io/component"] == "service"
    }
    assert len(services) >= 3
    scraped = yaml.safe_load(config["data"]["prometheus.yml"])
    asking = {
        d["metadata"]["namespace"]
        for d in rendering.of_kind("Deployment", "StatefulSet", "DaemonSet")
        if d["spec"]["template"]["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
    }
    assert {namespace for _, namespace in services} | {"monitoring", "infrastructure"} <= asking
    assert asking == set(scraped["scrape_configs"][0]["kubernetes_sd_configs"][0]["namespaces"]["names"])
    assert scraped["global"]["scrape_interval"] == "15s"
    missed = {
        (rule["labels"]["service"], rule["labels"]["namespace"])
        for group in yaml.safe_load(rules_map["data"]["services.yml"])["groups"]
        for rule in group["rules"]
        if rule["alert"] == "ServiceDown"
    }
    assert missed == services


def test_redis_knows_who_declares_it(rendering: Rendering) -> None:
    secret = rendering.find("Secret", "infrastructure", "redis")
    assert secret
    users = base64.b64decode(secret["data"]["users.acl"]).decode().splitlines()
    with_redis = {
        d["metadata"]["name"]
        for d in rendering.of_kind("Deployment")
        for container in d["spec"]["template"]["spec"]["containers"]
        if any(variable["name"] == "REDIS_USER" for variable in container.get("env", []))
    }
    assert {line.split()[1] for line in users} == with_redis | {"default", "_monitor"}


@pytest.mark.parametrize(
    ("secret", "prefix", "users"), [("redis", "REDIS", 3), ("postgres-certificate", "DATABASE", 3)]
)
def test_a_data_store_has_a_certificate_of_the_ca_that_its_services_believe(
    rendering: Rendering, secret: str, prefix: str, users: int
) -> None:
    found = rendering.find("Secret", "infrastructure", secret)
    assert found
    held = {name: base64.b64decode(found["data"][name]).decode() for name in ("ca.crt", "tls.crt", "tls.key")}
    certificate = x509.load_pem_x509_certificate(held["tls.crt"].encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(held["ca.crt"].encode()))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    clients = 0
    for workload in rendering.of_kind("Deployment", "Job"):
        [container] = workload["spec"]["template"]["spec"]["containers"]
        given = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        if f"{prefix}_USER" in given:
            clients += workload["kind"] == "Deployment"
            assert given[f"{prefix}_TLS"] == "true"
            assert given[f"{prefix}_HOST"] in names.get_values_for_type(x509.DNSName)
            metadata = workload["metadata"]
            ca = rendering.find(
                "ConfigMap", metadata["namespace"], f"{metadata['labels']['app.kubernetes.io/name']}-platform-ca"
            )
            assert ca and ca["data"]["ca.crt"] == held["ca.crt"]
    assert clients >= users
