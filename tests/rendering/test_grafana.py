"""The role grafana: what it may do, who gets in, what it shows. That the queries find something: molecule/grafana."""

from __future__ import annotations

import configparser
import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.rendering.conftest import KUBERNETES, Rendering, pick

ALL = ("secret.yml.j2", "config.yml.j2", "dashboards.yml.j2", "service.yml.j2", "deployment.yml.j2", "ingress.yml.j2")
PASSWORD, KEY = "canary-password", "canary-key"
LOKI, JAEGER = "http://loki.monitoring.svc:3100", "http://jaeger.monitoring.svc:16686"
SHOP = {"name": "shop", "namespace": "shops", "port": 80, "ingress": {"path": "/"}, "database": {"name": "shop_db"}}


def grafana(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "grafana_host": "grafana.mycompany.com",
        "grafana_image": f"docker.io/grafana/grafana@sha256:{64 * '0'}",
        "grafana_admin_password": PASSWORD,
        "grafana_secret_key": KEY,
        "grafana_services": [SHOP],
    }
    return list(render("grafana", *ALL, **given | variables))


def settings(documents: list[dict[str, Any]]) -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None)
    read.read_string(pick(documents, "ConfigMap", "grafana")["data"]["grafana.ini"])
    return read


def sources(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    text = pick(documents, "ConfigMap", "grafana")["data"]["datasources.yml"]
    return {source["uid"]: source for source in yaml.safe_load(text)["datasources"]}


def boards(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    data = pick(documents, "ConfigMap", f"grafana-dashboards-{kind}")["data"]
    return {name.removesuffix(".json"): json.loads(text) for name, text in data.items()}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"grafana_services": []},
        {"grafana_loki_url": LOKI},
        {"grafana_loki_url": LOKI, "grafana_jaeger_url": JAEGER},
    ],
    ids=["alone", "no service", "loki", "both"],
)
def test_every_document_is_valid(render: Any, variables: dict[str, Any]) -> None:
    documents = grafana(render, **variables)
    assert {document["kind"] for document in documents} == {
        *("Secret", "ConfigMap", "ServiceAccount", "Service", "Deployment", "Ingress")
    }
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "slipway"


def test_secrets_are_in_the_secret_alone(render: Any) -> None:
    documents = grafana(render)
    others = json.dumps([document for document in documents if document["kind"] != "Secret"])
    assert PASSWORD not in others
    assert KEY not in others
    assert set(pick(documents, "Secret", "grafana")["data"]) == {"admin_password", "secret_key"}


def test_nobody_gets_in_without_the_password_and_it_calls_nobody(render: Any) -> None:
    read = settings(grafana(render))
    assert read["security"]["admin_password"] == "$__file{/run/secrets/grafana/admin_password}"
    assert read["security"]["secret_key"] == "$__file{/run/secrets/grafana/secret_key}"
    off = {
        "auth.anonymous": ["enabled"],
        "users": ["allow_sign_up", "allow_org_create"],
        "analytics": ["reporting_enabled", "check_for_updates", "check_for_plugin_updates", "feedback_links_enabled"],
        "news": ["news_feed_enabled"],
        "plugins": ["plugin_admin_enabled"],
        "snapshots": ["external_enabled"],
        "metrics": ["enabled"],
    }
    assert {f"{part}.{name}" for part, names in off.items() for name in names if read[part].getboolean(name)} == set()
    on = {
        "security": ["cookie_secure", "disable_gravatar", "content_security_policy"],
        "plugins": ["preinstall_disabled"],
    }
    assert {
        f"{part}.{name}" for part, names in on.items() for name in names if not read[part].getboolean(name)
    } == set()


def test_a_changed_password_or_setting_rolls_the_pod_and_a_dashboard_does_not(render: Any) -> None:
    def annotations(**variables: Any) -> dict[str, str]:
        found = pick(grafana(render, **variables), "Deployment", "grafana")["spec"]["template"]["metadata"][
            "annotations"
        ]
        return dict(found)

    before = annotations()
    assert annotations(grafana_services=[]) == before
    assert annotations(grafana_admin_password="another")["slipway/secrets"] != before["slipway/secrets"]
    assert annotations(grafana_loki_url=LOKI)["slipway/config"] != before["slipway/config"]


def test_its_pod_is_confined(render: Any) -> None:
    pod = pick(grafana(render), "Deployment", "grafana")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= container["resources"].keys()
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    # Where the settings say that things are.
    paths = {item["path"] for volume in pod["volumes"] for item in volume.get("configMap", {}).get("items", [])}
    assert paths == {
        "grafana.ini",
        "provisioning/datasources/datasources.yml",
        "provisioning/dashboards/providers.yml",
    }


def test_dashboards_lie_where_the_providers_look(render: Any) -> None:
    documents = grafana(render)
    providers = yaml.safe_load(pick(documents, "ConfigMap", "grafana")["data"]["providers.yml"])["providers"]
    pod = pick(documents, "Deployment", "grafana")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
    found = {provider["options"]["path"]: volumes[mounts[provider["options"]["path"]]] for provider in providers}
    assert found == {
        "/dashboards/platform": "grafana-dashboards-platform",
        "/dashboards/services": "grafana-dashboards-services",
    }


def test_the_first_page_is_one_of_the_dashboards(render: Any) -> None:
    documents = grafana(render)
    path = settings(documents)["dashboards"]["default_home_dashboard_path"]
    assert path.startswith("/dashboards/platform/")
    assert path.rpartition("/")[2].removesuffix(".json") in boards(documents, "platform")


def test_data_sources_have_fixed_uids_and_lead_to_each_other(render: Any) -> None:
    found = sources(grafana(render, grafana_loki_url=LOKI, grafana_jaeger_url=JAEGER))
    assert {uid: source["url"] for uid, source in found.items()} == {
        "prometheus": "http://prometheus.monitoring.svc:9090",
        "alertmanager": "http://alertmanager.monitoring.svc:9093",
        "loki": LOKI,
        "jaeger": JAEGER,
    }
    assert found["loki"]["jsonData"]["derivedFields"][0]["datasourceUid"] == "jaeger"
    assert found["jaeger"]["jsonData"]["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert found["jaeger"]["jsonData"]["tracesToMetrics"]["datasourceUid"] == "prometheus"
    assert not any(source["editable"] for source in found.values())


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, {"prometheus"}),
        ({"grafana_loki_url": LOKI}, {"prometheus", "loki"}),
        ({"grafana_jaeger_url": JAEGER}, {"prometheus", "jaeger"}),
    ],
    ids=["alone", "loki", "jaeger"],
)
def test_panels_ask_only_what_is_there(render: Any, variables: dict[str, Any], wanted: set[str]) -> None:
    documents = grafana(render, **variables)
    assert wanted | {"alertmanager"} == set(sources(documents))
    shown = {**boards(documents, "platform"), **boards(documents, "services")}
    asked = {p["datasource"]["uid"] for b in shown.values() for p in b["panels"] if p["type"] != "row"}
    assert asked == wanted
    assert ("logs-traces" in shown) == (len(wanted) > 1)
    assert "http" not in json.dumps(sources(documents)["alertmanager"]["jsonData"])


def test_every_service_has_its_dashboard(render: Any) -> None:
    documents = grafana(render, grafana_services=[SHOP, SHOP | {"name": "till", "database": None}])
    found = boards(documents, "services")
    assert set(found) == {"service-shop", "service-till"}
    titles = {uid: [p["title"] for p in board["panels"]] for uid, board in found.items()}
    assert "Database" in titles["service-shop"]
    assert "Database" not in titles["service-till"]


def test_dashboards_of_many_services_fit_into_a_configmap(render: Any) -> None:
    many = [SHOP | {"name": f"shop-{number}", "redis": {}} for number in range(35)]
    documents = grafana(render, grafana_services=many, grafana_loki_url=LOKI, grafana_jaeger_url=JAEGER)
    for kind in ("platform", "services"):
        data = pick(documents, "ConfigMap", f"grafana-dashboards-{kind}")["data"]
        assert sum(len(name) + len(text.encode()) for name, text in data.items()) < 1024 * 1024, kind


def test_what_playbooks_apply(rendering: Rendering) -> None:
    """With an image everything, its name among those of the certificate; without one what it would show."""
    applied = {d["kind"] for d in rendering.documents if d["metadata"]["name"] == "grafana"}
    [public] = [d for d in rendering.of_kind("Ingress") if d["metadata"]["name"] == "public-certificate"]
    names = [name for name in public["spec"]["tls"][0]["hosts"] if name.startswith("grafana.")]
    if rendering.profile == "local":
        assert applied == {"Secret", "ConfigMap"}
        assert names == []
    else:
        assert applied == {"Secret", "ConfigMap", "ServiceAccount", "Service", "Deployment", "Ingress"}
        assert [rule["host"] for d in rendering.of_kind("Ingress") for rule in d["spec"]["rules"]].count(names[0]) == 2
    services = rendering.find("ConfigMap", "monitoring", "grafana-dashboards-services")
    assert services is not None
    assert {"service-demo.json", "service-web.json"} <= services["data"].keys()


def test_every_alert_leads_to_an_address_of_grafana(rendering: Rendering) -> None:
    [rules] = [d for d in rendering.of_kind("ConfigMap") if d["metadata"]["name"] == "prometheus-rules"]
    brought = rendering.find("ConfigMap", "api", "api-alerts")
    assert brought is not None
    texts = [*rules["data"].values(), *brought["data"].values()]
    found = [r for text in texts for g in yaml.safe_load(text)["groups"] for r in g["rules"] if "alert" in r]
    assert len(found) > 50
    for rule in found:
        host, _, uid = rule["annotations"]["dashboard"].partition("/d/")
        assert host.startswith("https://grafana.")
        assert uid
