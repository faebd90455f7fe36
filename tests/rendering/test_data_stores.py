"""What the roles postgres and minio apply: valid against the API's schemas, confined, without a secret in sight."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

KUBERNETES = "1.36"
POSTGRES = ("secrets.yml.j2", "rbac.yml.j2", "services.yml.j2", "config.yml.j2", "statefulset.yml.j2")
MINIO = ("secrets.yml.j2", "services.yml.j2", "statefulset.yml.j2")
DATABASES = [{"name": "auth_db", "owner": "auth_user", "password": "hidden-database"}]
USERS = [
    {
        "name": "image",
        "access_key": "hidden-access",
        "secret_key": "hidden-secret",
        "grants": [{"bucket": "images", "access": "write"}],
    }
]
HIDDEN = "hidden-"  # what every secret here begins with


def postgres(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "postgres_image": "slipway.local/postgres:test",
        "postgres_superuser_password": "hidden-super",
        "postgres_replication_password": "hidden-copy",
        "postgres_databases": DATABASES,
    }
    return list(render("postgres", *POSTGRES, **given | variables))


def minio(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "minio_image": "slipway.local/minio:test",
        "minio_root_user": "hidden-user",
        "minio_root_password": "hidden-root",
        "minio_users": USERS,
    }
    return list(render("minio", *MINIO, **given | variables))


def pick(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


CASES = [
    pytest.param(postgres, {}, id="postgres"),
    pytest.param(postgres, {"postgres_members": 3, "postgres_storage_class": "fast"}, id="postgres of three"),
    pytest.param(postgres, {"postgres_databases": []}, id="postgres without a database"),
    pytest.param(minio, {}, id="minio"),
    pytest.param(minio, {"minio_members": 4, "minio_storage_class": "fast"}, id="minio of four"),
    pytest.param(minio, {"minio_users": []}, id="minio without a user"),
]


@pytest.mark.parametrize(("role", "variables"), CASES)
def test_every_document_is_valid(render: Any, role: Any, variables: dict[str, Any]) -> None:
    for document in role(render, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["namespace"] == "infrastructure"
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "slipway"


@pytest.mark.parametrize(("role", "variables"), CASES)
def test_pods_are_confined(render: Any, role: Any, variables: dict[str, Any]) -> None:
    [workload] = [d for d in role(render, **variables) if d["kind"] == "StatefulSet"]
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(("role", "variables"), CASES)
def test_secrets_are_in_secrets_only(render: Any, role: Any, variables: dict[str, Any]) -> None:
    documents = role(render, **variables)
    assert [d["metadata"]["name"] for d in documents if d["kind"] != "Secret" and HIDDEN in json.dumps(d)] == []
    [workload] = [d for d in documents if d["kind"] == "StatefulSet"]
    assert "secretKeyRef" not in json.dumps(workload)


def test_a_frozen_patroni_is_gone_before_its_lock_may_expire(render: Any) -> None:
    documents = postgres(render)
    config = pick(documents, "ConfigMap", "postgres-patroni")["data"]
    settings = yaml.safe_load(config["bootstrap.yml"])["bootstrap"]["dcs"]
    assert settings["loop_wait"] + 2 * settings["retry_timeout"] <= settings["ttl"]
    probe = pick(documents, "StatefulSet", "postgres")["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
    window = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert window + probe["terminationGracePeriodSeconds"] < settings["ttl"] - settings["loop_wait"]


def test_the_read_write_service_follows_no_label(render: Any) -> None:
    documents = postgres(render)
    assert "selector" not in pick(documents, "Service", "postgres")["spec"]
    assert pick(documents, "Service", "postgres-replica")["spec"]["selector"]["role"] == "replica"


@pytest.mark.parametrize(("members", "synchronous"), [(1, False), (2, True), (3, True)])
def test_several_members_commit_on_a_standby_too(render: Any, members: int, synchronous: bool) -> None:
    documents = postgres(render, postgres_members=members)
    config = yaml.safe_load(pick(documents, "ConfigMap", "postgres-patroni")["data"]["bootstrap.yml"])
    assert config["bootstrap"]["dcs"]["synchronous_mode"] is synchronous
    kinds = [d["kind"] for d in documents]
    assert ("PodDisruptionBudget" in kinds) is (members > 1)


def test_a_changed_setting_restarts_nobody(render: Any) -> None:
    """It goes through Patroni's API; only what Patroni reads at its start rolls the pods."""
    before, after = postgres(render), postgres(render, postgres_parameters={"max_connections": 200})
    assert pick(before, "StatefulSet", "postgres") == pick(after, "StatefulSet", "postgres")
    assert pick(before, "ConfigMap", "postgres-patroni") != pick(after, "ConfigMap", "postgres-patroni")


def test_four_minios_name_the_drives_of_all(render: Any) -> None:
    pod = pick(minio(render, minio_members=4), "StatefulSet", "minio")["spec"]["template"]["spec"]
    drives = "http://minio-{0...3}.minio-members.infrastructure.svc.cluster.local:9000/data/store"
    assert pod["containers"][0]["args"][-1] == drives
