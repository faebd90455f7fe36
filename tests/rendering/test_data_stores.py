"""The roles postgres and minio by themselves, with what the inventories of this project do not set."""

from __future__ import annotations

import base64
import configparser
import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.rendering.conftest import ROOT, pick

VERSIONS = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
KUBERNETES = ".".join(str(VERSIONS["kubernetes_version"]).split(".")[:2])
POSTGRES = (
    "secrets.yml.j2",
    "rbac.yml.j2",
    "services.yml.j2",
    "config.yml.j2",
    "statefulset.yml.j2",
    "pgbouncer.yml.j2",
    "claim.yml.j2",
    "verify_backup.yml.j2",
)
MINIO = ("secrets.yml.j2", "services.yml.j2", "statefulset.yml.j2", "heal.yml.j2", "fill.yml.j2")
DATABASES = [{"name": "auth_db", "owner": "auth_user", "password": "test-database"}]
GRANTS = [{"bucket": "images", "access": "write"}]
USERS = [{"name": "image", "access_key": "test-access", "secret_key": "test-secret", "grants": GRANTS}]


def postgres(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "postgres_image": "slipway.local/postgres:test",
        "postgres_superuser_password": "test-super",
        "postgres_replication_password": "test-copy",
        "postgres_pooler_password": 'test"pooler',
        "postgres_certificate": "test-certificate",
        "postgres_certificate_key": "test-key",
        "postgres_ca_certificate": "test-ca",
        "postgres_databases": DATABASES,
    }
    return list(render("postgres", *POSTGRES, **given | variables))


def minio(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "minio_image": "slipway.local/minio:test",
        "minio_root_user": "test-user",
        "minio_root_password": "test-root",
        "minio_certificate": "test-certificate",
        "minio_certificate_key": "test-key",
        "minio_ca_certificate": "test-ca",
        "minio_users": USERS,
    }
    return list(render("minio", *MINIO, **given | variables))


BACKUP = {
    "postgres_backup_endpoint": "https://10.20.0.31:9000",
    "postgres_backup_access_key": "test-backup-access",
    "postgres_backup_secret_key": "test-backup-secret",
    "postgres_backup_cipher_password": "test-cipher",
    "postgres_backup_ca_certificate": "test-backup-ca",
    "postgres_backup_verifier_password": "test-verifier",
    "postgres_backup_reader_access_key": "test-reader-access",
    "postgres_backup_reader_secret_key": "test-reader-secret",
}


CASES = [
    pytest.param(postgres, {}, id="postgres"),
    pytest.param(postgres, BACKUP, id="postgres with backups"),
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


def test_over_the_network_postgres_speaks_tls_only(render: Any) -> None:
    documents = postgres(render)
    server = yaml.safe_load(pick(documents, "ConfigMap", "postgres-patroni")["data"]["patroni.yml"])["postgresql"]
    assert server["parameters"]["ssl"] == "on"
    assert {rule.split()[0] for rule in server["pg_hba"]} == {"local", "hostssl"}
    for user in ("replication", "rewind"):
        login = server["authentication"][user]
        assert (login["sslmode"], login["channel_binding"]) == ("verify-ca", "require"), user
        assert login["sslrootcert"] == "/run/secrets/postgres-certificate/ca.crt"


def pooler_settings(documents: list[dict[str, Any]]) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(comment_prefixes=(";",))
    parser.read_string(pick(documents, "ConfigMap", "pgbouncer")["data"]["pgbouncer.ini"])
    return parser


def test_the_pooler_speaks_tls_only_and_knows_no_password_but_its_own(render: Any) -> None:
    documents = postgres(render)
    parsed = pooler_settings(documents)
    settings = parsed["pgbouncer"]
    assert (settings["client_tls_sslmode"], settings["server_tls_sslmode"]) == ("require", "verify-full")
    assert (settings["auth_type"], settings["pool_mode"]) == ("scram-sha-256", "transaction")
    server = "host=postgres.infrastructure.svc port=5432"
    assert dict(parsed["databases"]) == {"auth_db": server, "postgres": server}
    users = base64.b64decode(pick(documents, "Secret", "pgbouncer")["data"]["users.txt"]).decode()
    assert users == '"_pooler" "test""pooler"\n'
    for document in documents:
        if document["kind"] != "Secret":
            assert not [
                value
                for value in ("test-database", "test-super", 'test"pooler', 'test""pooler')
                if value in str(document)
            ]


@pytest.mark.parametrize(
    "change",
    [
        {"postgres_certificate": "another"},
        {"postgres_ca_certificate": "another"},
        {"postgres_pooler_password": "another"},
        {"postgres_pooler_connections": 20},
        {"postgres_databases": []},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_pooler_reads_at_its_start_rolls_its_pods(render: Any, change: dict[str, Any]) -> None:
    before, after = (pick(d, "Deployment", "pgbouncer") for d in (postgres(render), postgres(render, **change)))
    assert before["spec"]["template"] != after["spec"]["template"]


def test_the_poolers_leave_connections_for_others(render: Any) -> None:
    """All of them in front of the databases of the services that there are."""
    documents = postgres(render)
    own = int(pooler_settings(documents)["pgbouncer"]["default_pool_size"])
    replicas = pick(documents, "Deployment", "pgbouncer")["spec"]["replicas"]
    config = yaml.safe_load(pick(documents, "ConfigMap", "postgres-patroni")["data"]["bootstrap.yml"])
    maximum = config["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"]
    databases = [path for path in (ROOT / "services").glob("*/service.yml") if "database:" in path.read_text()]
    assert len(databases) >= 3
    assert own * replicas * len(databases) <= maximum * 2 // 3


def test_a_new_certificate_restarts_nobody(render: Any) -> None:
    before, after = postgres(render), postgres(render, postgres_certificate="another")
    assert pick(before, "StatefulSet", "postgres") == pick(after, "StatefulSet", "postgres")
    assert pick(before, "Secret", "postgres-certificate") != pick(after, "Secret", "postgres-certificate")


@pytest.mark.parametrize(
    ("members", "strict", "synchronous", "waits"),
    [(1, False, False, False), (1, True, False, False), (2, False, True, False), (2, True, True, True)],
)
def test_several_members_commit_on_a_standby_too(
    render: Any, members: int, strict: bool, synchronous: bool, waits: bool
) -> None:
    documents = postgres(render, postgres_members=members, postgres_synchronous_strict=strict)
    config = yaml.safe_load(pick(documents, "ConfigMap", "postgres-patroni")["data"]["bootstrap.yml"])
    dcs = config["bootstrap"]["dcs"]
    assert (dcs["synchronous_mode"], dcs["synchronous_mode_strict"]) == (synchronous, waits)
    budgets = [d["metadata"]["name"] for d in documents if d["kind"] == "PodDisruptionBudget"]
    assert ("postgres" in budgets) is (members > 1)


def test_a_changed_setting_restarts_nobody(render: Any) -> None:
    """It goes through Patroni's API; only what Patroni reads at its start rolls the pods."""
    before, after = postgres(render), postgres(render, postgres_parameters={"max_connections": 200})
    assert pick(before, "StatefulSet", "postgres") == pick(after, "StatefulSet", "postgres")
    assert pick(before, "ConfigMap", "postgres-patroni") != pick(after, "ConfigMap", "postgres-patroni")


def backup_settings(documents: list[dict[str, Any]], name: str = "postgres-backup") -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(base64.b64decode(pick(documents, "Secret", name)["data"]["pgbackrest.conf"]).decode())
    return parser


def parameters(documents: list[dict[str, Any]]) -> dict[str, Any]:
    config = yaml.safe_load(pick(documents, "ConfigMap", "postgres-patroni")["data"]["bootstrap.yml"])
    return dict(config["bootstrap"]["dcs"]["postgresql"]["parameters"])


def test_backups_are_encrypted_and_go_to_whom_the_ca_knows(render: Any) -> None:
    documents = postgres(render, **BACKUP)
    settings = backup_settings(documents)["global"]
    assert settings["repo1-s3-endpoint"] == "https://10.20.0.31:9000"
    assert settings["repo1-storage-ca-file"] == "/etc/pgbackrest/ca.crt"
    assert "repo1-storage-verify-tls" not in settings
    assert (settings["repo1-cipher-type"], settings["repo1-cipher-pass"]) == ("aes-256-cbc", "test-cipher")
    assert settings["archive-push-queue-max"]
    assert int(parameters(documents)["archive_timeout"].removesuffix("s")) <= 60
    for document in documents:
        if document["kind"] != "Secret":
            words = ("test-backup-access", "test-backup-secret", "test-cipher", "test-verifier", "test-reader-secret")
            assert not [word for word in words if word in str(document)], document["kind"]


def test_an_inventory_cannot_send_the_archive_elsewhere(render: Any) -> None:
    given = {"archive_command": "true", "archive_mode": "off", "work_mem": "8MB"}
    found = parameters(postgres(render, **BACKUP, postgres_parameters=given))
    assert (found["archive_mode"], found["work_mem"]) == ("on", "8MB")
    assert found["archive_command"].startswith("pgbackrest ")


def test_the_check_of_a_backup_has_the_keys_that_it_needs_and_a_disk_of_its_own(render: Any) -> None:
    documents = postgres(render, **BACKUP, postgres_storage_class="fast")
    spec = pick(documents, "CronJob", "postgres-verify-backup")["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("30 3 * * *", "Forbid")
    job = spec["jobTemplate"]["spec"]
    pod, [container] = job["template"]["spec"], job["template"]["spec"]["containers"]
    # Its own end comes first, and says why.
    [limit] = [int(word.removeprefix("--seconds=")) for word in container["args"] if word.startswith("--seconds=")]
    assert limit < job["activeDeadlineSeconds"]
    assert "--databases=auth_db" in container["args"]
    assert pod["automountServiceAccountToken"] is False
    assert {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume} == {
        "postgres-verify-backup"
    }
    settings = backup_settings(documents, "postgres-verify-backup")["global"]
    assert (settings["repo1-s3-key"], settings["repo1-s3-key-secret"]) == ("test-reader-access", "test-reader-secret")
    assert settings["repo1-cipher-pass"] == "test-cipher"
    assert backup_settings(documents)["global"]["repo1-s3-key"] == "test-backup-access"
    [scratch] = [volume["ephemeral"] for volume in pod["volumes"] if "ephemeral" in volume]
    asked = scratch["volumeClaimTemplate"]["spec"]
    assert (asked["storageClassName"], asked["resources"]["requests"]) == ("fast", {"storage": "10Gi"})
    # No Service and no budget of the members may take it for one of them.
    assert job["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "postgres-verify-backup"


def test_the_exporter_tells_when_a_backup_was_made_and_verified(render: Any) -> None:
    documents = postgres(render, **BACKUP)
    queries = yaml.safe_load(pick(documents, "ConfigMap", "postgres-exporter")["data"]["queries.yml"])
    names = {f"{group}_{name}" for group, query in queries.items() for metric in query["metrics"] for name in metric}
    assert names == {"backup_last_completed_timestamp", "backup_last_verified_timestamp"}
    pod = pick(documents, "StatefulSet", "postgres")["spec"]["template"]["spec"]
    [exporter] = [container for container in pod["containers"] if container["name"] == "exporter"]
    [file] = [word.partition("=")[2] for word in exporter["args"] if word.startswith("--extend.query-path=")]
    [mount] = [found["mountPath"] for found in exporter["volumeMounts"] if found["name"] == "queries"]
    assert file == f"{mount}/queries.yml"


def test_without_a_place_for_backups_nothing_speaks_of_them(render: Any) -> None:
    documents = postgres(render)
    assert [d["metadata"]["name"] for d in documents if "backup" in d["metadata"]["name"]] == []
    assert [d["metadata"]["name"] for d in documents if "_verifier" in d.get("data", {})] == []
    assert "archive_mode" not in parameters(documents)
    pod = pick(documents, "StatefulSet", "postgres")["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["containers"]] == ["postgres", "exporter"]


def test_four_minios_name_the_drives_of_all(render: Any) -> None:
    pod = pick(minio(render, minio_members=4), "StatefulSet", "minio")["spec"]["template"]["spec"]
    drives = "https://minio-{0...3}.minio-members.infrastructure.svc.cluster.local:9000/data/store"
    assert pod["containers"][0]["args"][-1] == drives


def test_the_drives_of_four_are_checked_by_a_pod_that_gets_no_requests(render: Any) -> None:
    documents = minio(render, minio_members=4)
    job = pick(documents, "CronJob", "minio-heal")["spec"]["jobTemplate"]["spec"]["template"]
    for service in ("minio", "minio-members"):
        wanted = pick(documents, "Service", service)["spec"]["selector"]
        assert not wanted.items() <= job["metadata"]["labels"].items()


def test_a_minio_speaks_tls_only_and_restarts_for_a_new_certificate(render: Any) -> None:
    before, after = minio(render), minio(render, minio_certificate="another")
    pod = pick(before, "StatefulSet", "minio")["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert container["args"][1:3] == ["--certs-dir", "/run/secrets/minio-tls"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert pod != pick(after, "StatefulSet", "minio")["spec"]["template"]


@pytest.mark.parametrize("variables", [{}, {"postgres_storage_size": "20Gi", "postgres_storage_class": "fast"}])
def test_a_restore_makes_the_volume_that_the_first_member_takes(render: Any, variables: dict[str, Any]) -> None:
    documents = postgres(render, **variables)
    [wanted] = pick(documents, "StatefulSet", "postgres")["spec"]["volumeClaimTemplates"]
    found = pick(documents, "PersistentVolumeClaim", f"{wanted['metadata']['name']}-postgres-0")
    assert found["spec"] == wanted["spec"]
    assert found["metadata"]["labels"] == wanted["metadata"]["labels"]


def test_copying_back_carries_no_key_on_its_command_line(render: Any) -> None:
    copied = {"endpoint": "https://10.20.0.31:9000", "bucket": "images", "keys": "second-site"}
    keys = [{"name": "second-site", "access_key": "test-copy-access", "secret_key": "test-copy-secret"}]
    buckets = [{"name": "images", "versioning": True, "replication": copied}]
    documents = minio(render, minio_buckets=buckets, minio_replication_keys=keys)
    [container] = pick(documents, "Pod", "minio-fill")["spec"]["containers"]
    declaration = json.loads(container["args"][container["args"].index("-declaration") + 1])
    assert declaration["buckets"] == buckets
    assert "test-" not in str(container["args"])
