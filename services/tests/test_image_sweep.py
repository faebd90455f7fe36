"""The sweep removes what no row speaks of, and nothing else."""

import asyncio
import io
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest
import slipway_image.storage
from prometheus_client import CollectorRegistry
from slipway_image.repository import ImageRepository
from slipway_image.settings import Settings
from slipway_image.storage import S3BlobStore
from slipway_image.sweep import Swept, sweep, sweep_command
from slipway_kit.capacity import CapacityMetrics
from slipway_kit.database import Database
from slipway_testing.image_client import image_client, stored
from slipway_testing.images import jpeg
from slipway_testing.minio import ObjectStore
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.processes import free_port
from test_processes import command, environment


def orphan(minio: ObjectStore, prefix: str) -> str:
    key = f"{prefix}/{uuid.uuid4().hex}"
    minio.client.put_object(BUCKET, key, io.BytesIO(b"orphan"), 6)
    return key


def swept(platform: Platform, age_seconds: int) -> Swept:
    async def run() -> Swept:
        registry = CollectorRegistry()
        settings = Settings(**platform.image_settings)
        database = Database(settings, registry, "test")
        blobs = S3BlobStore(settings, CapacityMetrics(registry))
        await database.open()
        try:
            return await sweep(ImageRepository(database), blobs, age_seconds)
        finally:
            await blobs.close()
            await database.close()

    return asyncio.run(run())


def test_only_orphans_go(image: httpx2.Client, platform: Platform, user: User, minio: ObjectStore) -> None:
    name = stored(image, user, jpeg())["filename"]
    thumbnail = image.get(f"/images/{name}/160", headers=user.headers).content
    orphans = {orphan(minio, "originals"), orphan(minio, f"variants/{'0' * 64}")}
    elsewhere = orphan(minio, "somebody-elses")
    before = minio.keys(BUCKET)
    done = swept(platform, 0)
    left = minio.keys(BUCKET)
    assert orphans & left == set()
    assert elsewhere in left
    # Other tests leave variants of old recipes behind: those go before anything is looked at.
    assert (done.fresh, done.looked_at + done.old_variants) == (0, len(before - {elsewhere}))
    assert done.removed >= 2
    assert done.removed_bytes >= 12
    # With what was made of it, without doing anything again.
    with image_client(platform) as client:
        assert client.get(f"/images/{name}", headers=user.headers).status_code == 200
        assert client.get(f"/images/{name}/160", headers=user.headers).content == thumbnail
        assert "image_variant_seconds_count{" not in client.get("/metrics").text
    assert swept(platform, 0).removed == 0
    minio.client.remove_object(BUCKET, elsewhere)


def test_what_is_fresh_stays(platform: Platform, minio: ObjectStore) -> None:
    """It may be an upload whose row comes in a moment."""
    swept(platform, 0)
    key = orphan(minio, "originals")
    done = swept(platform, 3600)
    assert (done.removed, done.fresh) == (0, done.looked_at)
    assert key in minio.keys(BUCKET)
    assert swept(platform, 0).removed == 1


def test_variants_of_old_recipes_go(image: httpx2.Client, platform: Platform, user: User, minio: ObjectStore) -> None:
    stored_ = stored(image, user, jpeg())
    path = f"/images/{stored_['filename']}/160"
    image.get(path, headers=user.headers)
    old = {key for key in minio.keys(BUCKET) if key.startswith(f"variants/{stored_['sha256']}")}
    assert len(old) == 1
    platform.postgres.query("image_db", "UPDATE variants SET recipe = 0 WHERE blob = $1", stored_["sha256"])
    assert swept(platform, 3600).old_variants == 0
    assert swept(platform, 0).old_variants == 1
    assert old & minio.keys(BUCKET) == set()
    assert image.get(path, headers=user.headers).status_code == 200


def test_more_than_one_page(platform: Platform, minio: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slipway_image.storage, "LIST_PAGE", 3)
    keys = {orphan(minio, "originals") for _ in range(8)}
    assert swept(platform, 0).removed >= 8
    assert keys & minio.keys(BUCKET) == set()


def run(platform: Platform, secrets: Path, **changes: str) -> tuple[int, list[dict[str, Any]], str]:
    """As the CronJob runs it: the exit code, the log, standard error."""
    done = subprocess.run(
        [sys.executable, *command("slipway_image", "sweep")[1:]],
        env=environment(platform.image_settings, secrets, **changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_command_says_what_it_did(platform: Platform, minio: ObjectStore, tmp_path: Path) -> None:
    swept(platform, 0)
    key = orphan(minio, "originals")
    code, log, error = run(platform, tmp_path / "secrets", SWEEP_AGE_SECONDS="0")
    assert (code, error) == (0, "")
    assert [line["key"] for line in log if line["event"] == "orphan removed"] == [key]
    (last,) = [line for line in log if line["event"] == "swept"]
    assert (last["removed"], last["removed_bytes"], last["fresh"], last["old_variants"]) == (1, 6, 0, 0)


def test_without_database_or_store_it_says_so(platform: Platform, tmp_path: Path) -> None:
    for changes in ({"DATABASE_PORT": str(free_port())}, {"S3_ENDPOINT": f"http://127.0.0.1:{free_port()}"}):
        code, log, error = run(platform, tmp_path / "secrets", **changes)
        assert (code, error) == (1, "")
        assert log[-1]["event"] == "sweep not finished"
        assert "Traceback" not in json.dumps(log)


async def test_one_at_a_time(platform: Platform, minio: ObjectStore) -> None:
    key = orphan(minio, "originals")
    settings = Settings(**(platform.image_settings | {"sweep_age_seconds": 0}))
    database = Database(settings, CollectorRegistry(), "test")
    await database.open()
    try:
        async with database.session("test") as connection:
            assert await connection.fetchval("SELECT pg_try_advisory_lock(2, 0)")
            assert await sweep_command(settings) == 0
            assert key in minio.keys(BUCKET)
        assert await sweep_command(settings) == 0
        assert key not in minio.keys(BUCKET)
    finally:
        await database.close()


async def test_an_upload_in_between_is_safe(platform: Platform, user: User, minio: ObjectStore) -> None:
    """Its object is listed, its row is there before the sweep asks: nothing happens to it."""
    key = orphan(minio, "originals")

    class Between(S3BlobStore):
        async def list(self, prefix: str) -> Any:
            async for page in super().list(prefix):
                if any(entry.key == key for entry in page):
                    await insert(key)
                yield page

    settings = Settings(**platform.image_settings)
    registry = CollectorRegistry()
    database = Database(settings, registry, "test")
    blobs = Between(settings, CapacityMetrics(registry))

    async def insert(key: str) -> None:
        sha256 = uuid.uuid4().hex * 2
        await database.execute("test", "INSERT INTO blobs (sha256, object_key, size) VALUES ($1, $2, 6)", sha256, key)

    await database.open()
    try:
        await sweep(ImageRepository(database), blobs, 0)
        assert key in minio.keys(BUCKET)
        await database.execute("test", "DELETE FROM blobs WHERE object_key = $1", key)
    finally:
        await blobs.close()
        await database.close()
