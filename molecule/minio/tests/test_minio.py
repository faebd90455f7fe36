"""The object store as the services, strangers and an operator meet it. What damages something does it to a second
installation, in a namespace of its own."""

from __future__ import annotations

import secrets as random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from confinement import confined, confinements
from leaks import leaked
from minio_installation import Installation, user
from object_store import ask

NAMESPACE, OWN = "infrastructure", "molecule-minio-own"
NAME = "app.kubernetes.io/name=minio"
HOST = "minio.infrastructure.svc"
ENDPOINT = f"{HOST}:9000"
DENIED = "AccessDenied"
Take = Callable[..., list[str]]

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


# --- the platform's


def test_a_service_keeps_reads_and_removes_objects_of_its_bucket(
    take: Take, secrets: dict[str, Any], definitions: dict[str, Any]
) -> None:
    buckets = {name: service["bucket"] for name, service in definitions.items() if "bucket" in service}
    assert buckets
    for service, bucket in buckets.items():
        name, text = f"molecule-{random.token_hex(8)}", random.token_hex(32)
        steps = [["put", bucket, name, text], ["get", bucket, name], ["remove", bucket, name], ["get", bucket, name]]
        answers = take(secrets["minio_keys"][service], *steps)
        assert answers == ["done", text, "done", "NoSuchKey"]


def test_a_service_sees_no_bucket_but_its_own(take: Take, secrets: dict[str, Any], definitions: dict[str, Any]) -> None:
    root = {"access_key": secrets["minio_root_user"], "secret_key": secrets["minio_root_password"]}
    strange = f"molecule-{random.token_hex(4)}"
    take(root, ["make bucket", strange], ["put", strange, "a", "b"])
    try:
        steps = [["list buckets"], ["list", strange], ["get", strange, "a"], ["put", strange, "c", "d"]]
        answers = take(secrets["minio_keys"]["image"], *steps)
        assert answers[0] in (definitions["image"]["bucket"], DENIED)
        assert answers[1:] == [DENIED, DENIED, DENIED]
    finally:
        take(root, ["remove", strange, "a"], ["remove bucket", strange])


def test_a_service_governs_nothing(take: Take, secrets: dict[str, Any], definitions: dict[str, Any]) -> None:
    bucket = definitions["image"]["bucket"]
    steps = [["make bucket", "molecule-mine"], ["remove bucket", bucket], ["open to all", bucket]]
    answers = take(secrets["minio_keys"]["image"], *steps)
    assert answers == [DENIED, DENIED, DENIED]


def test_who_has_no_key_or_a_wrong_one_is_refused(
    take: Take, secrets: dict[str, Any], definitions: dict[str, Any]
) -> None:
    bucket = definitions["image"]["bucket"]
    steps = [["list buckets"], ["list", bucket], ["get", bucket, "any"], ["put", bucket, "a", "b"]]
    assert take(None, *steps) == [DENIED] * 4
    wrong = secrets["minio_keys"]["image"] | {"secret_key": "x" * 40}
    assert take(wrong, steps[1]) == ["SignatureDoesNotMatch"]
    default = {"access_key": "minioadmin", "secret_key": "minioadmin"}
    assert take(default, steps[0]) == ["InvalidAccessKeyId"]


def test_it_answers_health_checks_and_has_a_console(client: Client, ca: str) -> None:
    for url in (f"https://{ENDPOINT}/minio/health/live", f"https://{ENDPOINT}/minio/health/ready"):
        assert client.call(ask, url=url, ca=ca)[0] == 200
    assert client.call(ask, url=f"https://{HOST}:9001/", ca=ca)[0] == 200


def test_its_certificate_is_of_the_platforms_ca_for_its_names(client: Client, ca: str) -> None:
    path = "9000/minio/health/live"
    for name in (HOST, f"{HOST}.cluster.local", "minio-0.minio-members.infrastructure.svc.cluster.local"):
        assert client.call(ask, url=f"https://{name}:{path}", ca=ca)[0] == 200, name
    # A name that leads there and is not its own; and a CA that is not the platform's.
    for name, believed in (("minio.infrastructure", ca), (HOST, "")):
        assert client.call(ask, url=f"https://{name}:{path}", ca=believed) == [-1, "SSLCertVerificationError"], name


def test_without_tls_it_says_nothing(client: Client, ca: str) -> None:
    for port in (9000, 9001):
        status, body = client.call(ask, url=f"http://{HOST}:{port}/minio/health/live", ca=ca)
        assert (status, "HTTPS server" in body or "HTTP request to an HTTPS" in body) == (400, True), body


def test_it_tells_prometheus_how_it_is_and_nothing_of_its_objects(client: Client, ca: str) -> None:
    status, body = client.call(ask, url=f"https://{ENDPOINT}/minio/v2/metrics/cluster", ca=ca)
    assert status == 200
    samples = dict(line.rsplit(" ", 1) for line in body.splitlines() if line and line[0] != "#")
    [online] = [value for name, value in samples.items() if name.startswith("minio_cluster_drive_online_total")]
    assert float(online) == 1
    assert "originals/" not in body


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10002))


def test_no_secret_is_in_its_specification(cluster: Any, secrets: dict[str, Any]) -> None:
    shown = str(cluster.items(f"/api/v1/namespaces/{NAMESPACE}/pods"))
    shown += str(cluster.items(f"/api/v1/namespaces/{NAMESPACE}/configmaps"))
    assert leaked(secrets, shown) == []


# --- one of the test's own


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    image = pods.core.read_namespaced_pod("minio-0", NAMESPACE).spec.containers[0].image
    with pods.namespace(OWN):
        installation = Installation(OWN, state, image)
        check = installation.apply("--check")
        assert check.code == 0, check.output
        assert pods.core.list_namespaced_service(OWN).items == []
        run = installation.apply()
        assert run.code == 0, run.output
        hidden = {name: one["secret_key"] for name, one in installation.users.items()}
        hidden |= {name: installation.variables[f"minio_{name}"] for name in ("root_password", "certificate_key")}
        assert leaked(hidden, run.output) == []
        yield installation


def test_a_second_run_changes_nothing(own: Installation) -> None:
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_write_includes_read_and_read_does_not_include_write(own: Installation, client: Client) -> None:
    put, get = ["put", "letters", "dear", "yours"], ["get", "letters", "dear"]
    assert own.steps(client, "writer", put, get, ["list", "letters"]) == ["done", "yours", "dear"]
    remove = ["remove", "letters", "dear"]
    assert own.steps(client, "reader", get, ["list", "letters"], put, remove) == ["yours", "dear", DENIED, DENIED]
    for name in own.users:
        assert own.steps(client, name, ["list", "stamps"]) == [DENIED]


def test_objects_outlive_the_pod(own: Installation, client: Client, pods: Pods) -> None:
    assert own.steps(client, "writer", ["put", "letters", "kept", "for ever"]) == ["done"]
    killed = pods.core.read_namespaced_pod("minio-0", OWN).metadata.uid
    pods.core.delete_namespaced_pod("minio-0", OWN, grace_period_seconds=0)
    pods.wait_ready(OWN, "minio-0", other_than=killed)
    assert pods.eventually(lambda: own.steps(client, "reader", ["get", "letters", "kept"]), ["for ever"]) == [
        "for ever"
    ]


def test_a_new_key_takes_the_place_of_the_old_one_and_an_undeclared_user_goes(
    own: Installation, client: Client
) -> None:
    before = dict(own.users)
    own.users = {"writer": user("writer", letters="write")}
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed > 0
    assert own.steps(client, "writer", ["get", "letters", "kept"]) == ["for ever"]
    for old in before.values():
        assert own.take(client, old, ["list", "letters"]) == ["InvalidAccessKeyId"]


def test_a_new_certificate_reaches_the_running_server(own: Installation, client: Client, pods: Pods) -> None:
    old = own.ca
    own.renew()
    run = own.apply()
    assert run.code == 0, run.output
    get = ["get", "letters", "kept"]
    assert pods.eventually(lambda: own.steps(client, "writer", get), ["for ever"]) == ["for ever"]
    url = f"https://{own.host}:9000/minio/health/live"
    assert client.call(ask, url=url, ca=old) == [-1, "SSLCertVerificationError"]


def test_uninstalled_with_its_data_nothing_is_left(own: Installation, pods: Pods) -> None:
    run = own.apply(applied_tasks="uninstall", minio_uninstall_data=True)
    assert run.code == 0, run.output
    assert pods.core.list_namespaced_pod(OWN, label_selector=NAME).items == []
    assert pods.core.list_namespaced_persistent_volume_claim(OWN).items == []
    assert pods.core.list_namespaced_secret(OWN).items == []
