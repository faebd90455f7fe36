"""image and an object store that speaks TLS, as the platform's does."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_testing.certificates import Authority
from slipway_testing.checks import assert_problem
from slipway_testing.image_client import image_client, stored, upload
from slipway_testing.images import jpeg
from slipway_testing.minio import ObjectStore, running_minio
from slipway_testing.platform import BUCKET, Platform, User


@pytest.fixture(scope="module")
def tls_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_minio(Authority(tmp_path_factory.mktemp("ca"))) as store:
        store.client.make_bucket(BUCKET)
        yield store


def settings(store: ObjectStore, ca: Path | None) -> dict[str, str | Path | None]:
    return {
        "s3_endpoint": store.url,
        "s3_access_key": store.access_key,
        "s3_secret_key": store.secret_key,
        "platform_ca_file": ca,
    }


def test_over_tls(platform: Platform, tls_store: ObjectStore, user: User) -> None:
    picture = jpeg(1_000_000)
    with image_client(platform, **settings(tls_store, tls_store.ca)) as client:
        name = stored(client, user, picture)["filename"]
        answer = client.get(f"/images/{name}", headers=user.headers)
        assert hashlib.sha256(answer.content).digest() == hashlib.sha256(picture).digest()
        assert client.get(f"/images/{name}/160", headers=user.headers).status_code == 200
        assert client.get("/health").json()["checks"]["storage"]["status"] == "ok"
        assert client.delete(f"/images/{name}", headers=user.headers).status_code == 204


@pytest.mark.parametrize("other_ca", [True, False], ids=["another CA", "the CAs of the system"])
def test_nothing_is_sent_to_a_store_that_nobody_vouches_for(
    platform: Platform, tls_store: ObjectStore, user: User, tmp_path: Path, other_ca: bool
) -> None:
    before = tls_store.keys(BUCKET)
    ca = Authority(tmp_path).file if other_ca else None
    with image_client(platform, **settings(tls_store, ca)) as client:
        assert_problem(upload(client, user, jpeg()), 503, "storage-unavailable")
        assert client.get("/health").json()["checks"]["storage"]["status"] == "down"
    assert tls_store.keys(BUCKET) == before
