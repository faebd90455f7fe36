"""The role service by itself, with services that ask for what a service.yml may ask for."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.rendering.conftest import KUBERNETES, ROOT, pick

sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from service_definition import load, load_schema

TEMPLATES = tuple(
    f"{name}.yml.j2"
    for name in (
        "serviceaccounts",
        "secrets",
        "platform_ca",
        "migrations",
        "services",
        "deployments",
        "ingresses",
        "schedules",
    )
)
ROOM = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
COMMON = {
    "replicas": 1,
    "port": 3010,
    "resources": ROOM,
    "probes": {"live": "/health/live", "ready": "/health/ready"},
    "callers": [],
    "callees": [],
}
SERVICES: dict[str, dict[str, Any]] = {
    "auth": {
        "database": {"name": "auth_db", "user": "auth_user"},
        "redis": {},
        "callers": ["shop"],
        "callees": ["postgres", "redis"],
        "secrets": {"service_keys": "service_keys", "auth_signing_key": "auth_signing_key", "empty": "empty"},
    },
    "shop": {
        "redis": {"reads": ["auth:revoked-sessions"]},
        "service_tokens": True,
        "callers": ["ingress"],
        "callees": ["auth", "redis"],
        "ingress": {"path": "/shop"},
        "metrics": {"path": "/internal/metrics"},
        "schedules": [
            {"name": "sweep", "schedule": "17 * * * *", "command": ["python3", "-m", "slipway_shop", "sweep"]}
        ],
    },
    "page": {"image": "web", "callers": ["ingress"], "ingress": {"path": "/", "host": "www"}},
}
VALUES = {
    "service_names": list(SERVICES),
    "service_domain": "slipway.test",
    "service_images": {name: f"slipway.local/{name}:0123456789ab" for name in SERVICES},
    "service_database_passwords": {"auth": "of-the-database"},
    "service_redis_passwords": {"auth": "of-auth-in-redis", "shop": "of-shop-in-redis"},
    "service_keys": {"shop": "the-key-of-shop"},
    "service_secret_values": {"service_keys": {"shop": "the-key-of-shop"}, "auth_signing_key": "a pem", "empty": ""},
    "service_ca_certificate": "the certificate\nof the CA\n",
    "service_trusted_proxies": ["10.42.0.0/16", "10.0.0.0/8"],
}


@pytest.fixture(scope="module")
def rendered(render: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that gives the documents of these services, with changed variables."""
    definitions = read(tmp_path_factory.mktemp("rendered") / "services")

    def documents(**variables: Any) -> list[dict[str, Any]]:
        return list(render("service", *TEMPLATES, service_definitions=definitions, **VALUES | variables))

    return documents


def read(directory: Path) -> list[dict[str, Any]]:
    for name, definition in SERVICES.items():
        (directory / name).mkdir(parents=True)
        whole = {**COMMON, "name": name, "namespace": f"{name}-space", **definition}
        (directory / name / "service.yml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    definitions, mistakes = load(
        directory, list(SERVICES), load_schema(ROOT / "roles/service/files/service.schema.yml")
    )
    assert [str(mistake) for mistake in mistakes] == []
    return definitions


def pod(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = pick(documents, "Deployment", name)["spec"]["template"]
    return found


def environment(documents: list[dict[str, Any]], name: str) -> dict[str, str]:
    [container] = pod(documents, name)["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def files(documents: list[dict[str, Any]], name: str) -> dict[str, str]:
    data = pick(documents, "Secret", name)["data"]
    return {file: base64.b64decode(content).decode() for file, content in data.items()}


def test_every_document_is_valid(rendered: Any) -> None:
    for document in rendered():
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_who_has_a_database_is_told_whether_it_takes_tls(rendered: Any) -> None:
    assert environment(rendered(), "auth")["DATABASE_TLS"] == "false"
    assert environment(rendered(service_database_tls=True), "auth")["DATABASE_TLS"] == "true"


def test_requests_reach_the_database_through_the_pooler_and_migrations_do_not(rendered: Any) -> None:
    documents = rendered(service_database_host="postgres.stores.svc", service_pooler_host="pooler.stores.svc")
    pooled = {"DATABASE_HOST": "pooler.stores.svc", "DATABASE_PORT": "6432"}
    assert pooled.items() <= environment(documents, "auth").items()
    [migration] = [d for d in documents if d["kind"] == "Job"]
    [container] = migration["spec"]["template"]["spec"]["containers"]
    direct = {variable["name"]: variable["value"] for variable in container["env"]}
    assert {"DATABASE_HOST": "postgres.stores.svc", "DATABASE_PORT": "5432"}.items() <= direct.items()
    assert not [name for name in environment(documents, "shop") if name.startswith("DATABASE")]
    assert environment(rendered(), "auth")["DATABASE_PORT"] == "5432"


def test_who_has_redis_gets_its_address_and_a_user_of_its_own(rendered: Any) -> None:
    documents = rendered(service_redis_host="redis.stores.svc")
    wanted = {"REDIS_HOST": "redis.stores.svc", "REDIS_PORT": "6379", "REDIS_TLS": "false", "REDIS_USER": "shop"}
    assert wanted.items() <= environment(documents, "shop").items()
    assert environment(rendered(service_redis_tls=True), "shop")["REDIS_TLS"] == "true"
    assert files(documents, "shop")["redis_password"] == "of-shop-in-redis"
    assert not [name for name in environment(documents, "page") if name.startswith("REDIS")]


def test_who_meets_a_data_store_gets_the_certificate_of_the_ca(rendered: Any) -> None:
    documents = rendered()
    for name in ("auth", "shop"):
        given = pick(documents, "ConfigMap", f"{name}-platform-ca")
        assert given["metadata"]["namespace"] == f"{name}-space"
        assert given["data"] == {"ca.crt": VALUES["service_ca_certificate"]}
        spec = pod(documents, name)["spec"]
        [volume] = [
            one["name"] for one in spec["volumes"] if one.get("configMap", {}).get("name") == f"{name}-platform-ca"
        ]
        [place] = [one["mountPath"] for one in spec["containers"][0]["volumeMounts"] if one["name"] == volume]
        assert environment(documents, name)["PLATFORM_CA_FILE"] == f"{place}/ca.crt"
    assert "PLATFORM_CA_FILE" not in environment(documents, "page")
    assert "ca.crt" not in str(rendered(service_ca_certificate="")), "there is none to give"


def test_who_proves_itself_gets_one_key_and_auth_gets_them_all(rendered: Any) -> None:
    documents = rendered()
    assert environment(documents, "shop")["SERVICE_TOKENS_URL"] == "http://auth.auth-space.svc:3010/service-tokens"
    assert files(documents, "shop").keys() == {"redis_password", "service_key"}
    assert files(documents, "shop")["service_key"] == "the-key-of-shop"
    assert json.loads(files(documents, "auth")["service_keys"]) == {"shop": "the-key-of-shop"}
    assert files(documents, "auth")["auth_signing_key"] == "a pem"
    assert files(documents, "auth")["empty"] == ""
    assert "SERVICE_TOKENS_URL" not in environment(documents, "auth")


def test_a_service_knows_which_services_call_it(rendered: Any) -> None:
    documents = rendered()
    assert environment(documents, "auth")["SERVICE_CALLERS"] == "shop"
    assert "SERVICE_CALLERS" not in environment(documents, "shop"), "the ingress is no service"


def test_what_every_service_gets(rendered: Any) -> None:
    documents = rendered(service_tracing_endpoint="http://collector.monitoring.svc:4318")
    for name in SERVICES:
        assert environment(documents, name)["TRUSTED_PROXIES"] == "10.42.0.0/16,10.0.0.0/8"
        assert environment(documents, name)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.monitoring.svc:4318"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in environment(rendered(), "shop"), "no tracing unless it is asked for"


def test_pods_say_where_their_metrics_are(rendered: Any) -> None:
    documents = rendered()
    for name, path in (("shop", "/internal/metrics"), ("auth", "/metrics")):
        wanted = {"prometheus.io/scrape": "true", "prometheus.io/port": "3010", "prometheus.io/path": path}
        assert wanted.items() <= pod(documents, name)["metadata"]["annotations"].items()


def test_a_host_is_below_the_domain(rendered: Any) -> None:
    documents = rendered()
    for name, host in (("shop", "slipway.test"), ("page", "www.slipway.test")):
        spec = pick(documents, "Ingress", name)["spec"]
        assert [rule["host"] for rule in spec["rules"]] == [host]
        assert "tls" not in spec, "its certificate is that of the Ingress public-certificate"


def test_a_schedule_runs_the_image_with_the_settings_and_secrets_of_the_service(rendered: Any) -> None:
    documents = rendered()
    [cronjob] = [document for document in documents if document["kind"] == "CronJob"]
    assert (cronjob["metadata"]["name"], cronjob["spec"]["schedule"]) == ("shop-sweep", "17 * * * *")
    assert cronjob["spec"]["concurrencyPolicy"] == "Forbid"
    template = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    [container], [service] = template["spec"]["containers"], pod(documents, "shop")["spec"]["containers"]
    assert container["command"] == ["python3", "-m", "slipway_shop", "sweep"]
    for key in ("image", "env", "volumeMounts", "securityContext", "resources"):
        assert container[key] == service[key]
    assert template["spec"]["volumes"] == pod(documents, "shop")["spec"]["volumes"]
    selector = pick(documents, "Service", "shop")["spec"]["selector"]
    assert not selector.items() <= template["metadata"]["labels"].items(), "it would get requests"


def test_without_a_database_there_is_no_migration(rendered: Any) -> None:
    jobs = [document["metadata"]["labels"] for document in rendered() if document["kind"] == "Job"]
    assert [labels["app.kubernetes.io/name"] for labels in jobs] == ["auth"]


def test_an_image_of_its_own_recipe_starts_what_it_was_made_for(rendered: Any) -> None:
    documents = rendered()
    assert "command" not in pod(documents, "page")["spec"]["containers"][0]
    assert pod(documents, "auth")["spec"]["containers"][0]["command"] == ["python3", "-m", "slipway_auth"]
    assert [document for document in documents if document["kind"] == "Secret" and "page" in str(document)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"service_redis_passwords": {"auth": "x", "shop": "another"}},
        {"service_keys": {"shop": "y"}},
        {"service_ca_certificate": "another"},
    ],
)
def test_another_secret_or_ca_rolls_the_pods_that_have_it(rendered: Any, change: dict[str, Any]) -> None:
    assert pod(rendered(), "shop") != pod(rendered(**change), "shop")
    assert pod(rendered(), "page") == pod(rendered(**change), "page")
