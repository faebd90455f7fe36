"""The object store outside of the cluster, and what of the cluster's objects is there."""

from __future__ import annotations

import secrets as random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from controller import Inventory, ssh
from object_store import ask, store

DENIED = "AccessDenied"
# How long an object may take to be there.
COPIED_SECONDS = 60

pytestmark = pytest.mark.explain("infrastructure")


@pytest.fixture(scope="module")
def address(inventory: Inventory) -> str:
    """Return the address of the host outside of the cluster."""
    [host] = inventory.hosts("second_site")
    return inventory.address(host)


@pytest.fixture
def there(client: Client, ca: str, address: str) -> Callable[..., list[str]]:
    """Return a function that takes steps at the second site with a key."""

    def steps(key: dict[str, str] | None, *steps: list[str]) -> list[str]:
        answers: list[str] = client.call(store, endpoint=f"{address}:9000", ca=ca, key=key, steps=list(steps))
        return answers

    return steps


def test_an_object_is_there_within_a_minute_and_outlives_its_deletion(
    take: Any, there: Any, pods: Pods, secrets: dict[str, Any], definitions: dict[str, Any]
) -> None:
    key, keys = secrets["minio_keys"]["image"], secrets["second_site_keys"]
    bucket, name, text = definitions["image"]["bucket"], f"molecule-{random.token_hex(8)}", random.token_hex(32)
    assert take(key, ["put", bucket, name, text]) == ["done"]

    def seen() -> list[str]:
        found: list[str] = there(keys["replication"], ["get", bucket, name])
        return found

    assert pods.eventually(seen, [text], COPIED_SECONDS) == [text]
    # The deletion arrives too, as a mark: the bytes stay below it.
    assert take(key, ["remove", bucket, name]) == ["done"]
    assert pods.eventually(seen, ["NoSuchKey"], COPIED_SECONDS) == ["NoSuchKey"]
    root = {"access_key": secrets["second_site_root_user"], "secret_key": secrets["second_site_root_password"]}
    assert there(root, ["get oldest", bucket, name]) == [text]


def test_each_key_opens_what_it_is_for_and_nothing_else(
    there: Any, secrets: dict[str, Any], definitions: dict[str, Any]
) -> None:
    keys, bucket = secrets["second_site_keys"], definitions["image"]["bucket"]
    name = f"molecule-{random.token_hex(8)}"
    put, get, remove = ["put", "backups", name, "safe"], ["get", "backups", name], ["remove", "backups", name]
    assert there(keys["backups"], put, get, ["list", bucket], ["put", bucket, name, "x"], remove) == [
        "done",
        "safe",
        DENIED,
        DENIED,
        "done",
    ]
    assert there(keys["replication"], ["list", "backups"], get, put, ["remove bucket", bucket]) == [DENIED] * 4
    # The keys of the cluster's own store open nothing here.
    for key in (secrets["minio_keys"]["image"], {"access_key": "minioadmin", "secret_key": "minioadmin"}):
        assert there(key, ["list", bucket]) == ["InvalidAccessKeyId"]
    assert there(None, ["list", "backups"], ["get", "backups", name]) == [DENIED] * 2


def test_it_speaks_tls_only_with_a_certificate_for_its_address(client: Client, ca: str, address: str) -> None:
    url = f"//{address}:9000/minio/health/ready"
    assert client.call(ask, url=f"https:{url}", ca=ca)[0] == 200
    assert client.call(ask, url=f"https:{url}", ca="") == [-1, "SSLCertVerificationError"]
    assert client.call(ask, url=f"http:{url}", ca=ca)[0] == 400


def test_it_is_a_service_of_the_host_that_is_root_nowhere(address: str, state: Path) -> None:
    host = ssh(address, state)
    assert host.check_output("systemctl is-enabled minio") == "enabled"
    assert host.check_output("ps -o user= -C minio") == "minio"
    for path in ("/etc/minio/certs/private.key", "/etc/minio/root/password", "/etc/minio/users/backups.secret_key"):
        file = host.file(path)
        assert (file.user, file.group, f"{file.mode:o}") == ("root", "minio", "640"), path


def test_what_is_there_outlives_a_restart(there: Any, pods: Pods, address: str, state: Path, secrets: Any) -> None:
    key, name = secrets["second_site_keys"]["backups"], f"molecule-{random.token_hex(8)}"
    assert there(key, ["put", "backups", name, "safe"]) == ["done"]
    assert ssh(address, state).run("systemctl kill --signal=SIGKILL minio").rc == 0

    def seen() -> str:
        try:
            return str(there(key, ["get", "backups", name])[0])
        except Exception as error:  # the client's own, of a server that is just starting
            return type(error).__name__

    assert pods.eventually(seen, "safe") == "safe"
    assert there(key, ["remove", "backups", name]) == ["done"]
