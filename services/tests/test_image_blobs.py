"""Equal bytes are kept once: whoever comes and goes meanwhile, no row is without bytes, and none are there twice."""

import asyncio
import hashlib
import io
import uuid
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import asyncpg
import httpx2
import pytest
from prometheus_client import CollectorRegistry
from slipway_image.repository import ImageRepository, NewImage, Usage
from slipway_image.settings import Settings
from slipway_image.storage import S3BlobStore
from slipway_kit.capacity import CapacityMetrics
from slipway_kit.database import Database
from slipway_kit.migrations import migrate
from slipway_kit.problems import Problem
from slipway_testing.checks import assert_problem
from slipway_testing.image_client import image_client, metric, stored, upload
from slipway_testing.images import encoded, jpeg
from slipway_testing.minio import ObjectStore
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.postgres import Postgres

RELEASE_BEFORE_CREATE = """
INSERT INTO images (id, owner_id, filename, object_key, sha256, size, content_type, width, height)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING id, owner_id, filename, object_key, sha256, size, content_type, width, height, created_at
"""
RELEASE_BEFORE_DELETE = "DELETE FROM images WHERE filename = $1 AND owner_id = $2 RETURNING object_key"


def blobs_of(platform: Platform, picture: bytes) -> list[str]:
    """The keys of the objects that the database speaks of."""
    sha256 = hashlib.sha256(picture).hexdigest()
    return [
        row[0] for row in platform.postgres.query("image_db", "SELECT object_key FROM blobs WHERE sha256 = $1", sha256)
    ]


def copies(minio: ObjectStore, picture: bytes) -> int:
    """Objects with these bytes, whatever they are called."""
    md5 = hashlib.md5(picture, usedforsecurity=False).hexdigest()
    return sum(entry.etag == md5 for entry in minio.client.list_objects(BUCKET, recursive=True))


def test_the_same_bytes_are_stored_once(
    image: httpx2.Client, platform: Platform, user: User, other_user: User, minio: ObjectStore
) -> None:
    picture = jpeg()
    mine, again, theirs = (stored(image, owner, picture) for owner in (user, user, other_user))
    assert len({one["filename"] for one in (mine, again, theirs)}) == 3
    assert {one["sha256"] for one in (mine, again, theirs)} == {hashlib.sha256(picture).hexdigest()}
    assert copies(minio, picture) == 1
    # Each counts for its owner.
    assert image.get("/stats", headers=user.headers).json()["images"] == 2
    for owner, one in ((user, mine), (user, again)):
        assert image.delete(f"/images/{one['filename']}", headers=owner.headers).status_code == 204
        assert image.get(f"/images/{theirs['filename']}", headers=other_user.headers).content == picture
    assert image.delete(f"/images/{theirs['filename']}", headers=other_user.headers).status_code == 204
    assert (copies(minio, picture), blobs_of(platform, picture)) == (0, [])
    # And from the beginning.
    again = stored(image, user, picture)
    assert image.get(f"/images/{again['filename']}", headers=user.headers).content == picture


@pytest.mark.parametrize("attempt", range(8))
def test_two_upload_the_same_while_one_deletes_it(
    image: httpx2.Client, platform: Platform, user: User, other_user: User, minio: ObjectStore, attempt: int
) -> None:
    picture = jpeg(200_000)
    third = platform.new_user()
    name = stored(image, third, picture)["filename"]
    with ThreadPoolExecutor(3) as pool:
        uploads = [pool.submit(upload, image, owner, picture) for owner in (user, other_user)]
        deleted = pool.submit(image.delete, f"/images/{name}", headers=third.headers)
        assert deleted.result().status_code == 204
        answers = [each.result() for each in uploads]
    for owner, answer in zip((user, other_user), answers, strict=True):
        assert answer.status_code == 201
        read = image.get(f"/images/{answer.json()['filename']}", headers=owner.headers)
        assert (read.status_code, read.content) == (200, picture)
    assert copies(minio, picture) == 1
    for owner, answer in zip((user, other_user), answers, strict=True):
        assert image.delete(f"/images/{answer.json()['filename']}", headers=owner.headers).status_code == 204
    assert (copies(minio, picture), blobs_of(platform, picture)) == (0, [])


def test_everybody_comes_and_goes_with_the_same_picture(
    image: httpx2.Client, platform: Platform, minio: ObjectStore
) -> None:
    """Without the lock on the blob a few of these lose their bytes."""
    picture = jpeg(50_000)

    def come_and_go(_: int) -> None:
        user = platform.new_user()
        for _ in range(5):
            name = stored(image, user, picture)["filename"]
            assert image.get(f"/images/{name}", headers=user.headers).content == picture
            assert image.get(f"/images/{name}/160", headers=user.headers).status_code == 200
            assert image.delete(f"/images/{name}", headers=user.headers).status_code == 204

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))
    assert (copies(minio, picture), blobs_of(platform, picture)) == (0, [])
    prefix = f"variants/{hashlib.sha256(picture).hexdigest()}/"
    assert [key for key in minio.keys(BUCKET) if key.startswith(prefix)] == []


@pytest.mark.parametrize("shared", [False, True])
def test_deleted_twice_at_the_same_time(image: httpx2.Client, user: User, other_user: User, shared: bool) -> None:
    for _ in range(5):
        picture = jpeg()
        if shared:
            stored(image, other_user, picture)
        name = stored(image, user, picture)["filename"]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: image.delete(f"/images/{name}", headers=user.headers), range(4)))  # noqa: B023
        assert sorted(answer.status_code for answer in answers) == [204, 404, 404, 404]


def test_the_number_of_images_is_limited(platform: Platform, user: User, other_user: User, minio: ObjectStore) -> None:
    with image_client(platform, quota_images=2) as client:
        names = [stored(client, user, jpeg())["filename"] for _ in range(2)]
        before = minio.keys(BUCKET)
        problem = assert_problem(upload(client, user, jpeg()), 403, "quota-exceeded")
        assert problem["limit"]["images"] == 2
        assert problem["used"]["images"] == 2
        assert minio.keys(BUCKET) == before
        assert metric(client, 'image_uploads_total{result="quota-exceeded"}') == 1
        # Everybody has his own, and what is deleted makes room.
        assert upload(client, other_user, jpeg()).status_code == 201
        assert client.delete(f"/images/{names[0]}", headers=user.headers).status_code == 204
        assert upload(client, user, jpeg()).status_code == 201


def test_the_number_of_bytes_is_limited(platform: Platform, user: User, minio: ObjectStore) -> None:
    with image_client(platform, quota_bytes=100_000) as client:
        stored(client, user, jpeg(60_000))
        before = minio.keys(BUCKET)
        problem = assert_problem(upload(client, user, jpeg(40_001)), 403, "quota-exceeded")
        assert (problem["used"], problem["limit"]) == (
            {"images": 1, "bytes": 60_000},
            {"images": 1000, "bytes": 100_000},
        )
        # Neither a row nor an object of it.
        assert minio.keys(BUCKET) == before
        assert upload(client, user, jpeg(40_000)).status_code == 201
        # Now it is known before the body has come.
        headers = user.headers | {"Content-Type": "multipart/form-data; boundary=x", "Expect": "100-continue"}
        assert_problem(client.post("/upload", content=b"", headers=headers), 403, "quota-exceeded")


def test_uploads_at_the_same_time_do_not_get_past_the_quota(platform: Platform, user: User) -> None:
    pictures = [jpeg(30_000 + number) for number in range(12)]
    with image_client(platform, quota_images=3) as client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda picture: upload(client, user, picture), pictures))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 9
        assert client.get("/stats", headers=user.headers).json()["images"] == 3


def new_image(picture: bytes, owner: uuid.UUID) -> NewImage:
    id_ = uuid.uuid4()
    sha256 = hashlib.sha256(picture).hexdigest()
    return NewImage(id_, owner, f"{id_.hex}.jpg", sha256, len(picture), "image/jpeg", 64, 48, 1)


async def test_a_blob_that_goes_while_an_image_waits_for_it(platform: Platform, minio: ObjectStore) -> None:
    """The moment that matters, held still: the last image is being deleted when the same bytes come again."""
    database = Database(Settings(**platform.image_settings), CollectorRegistry(), "test")
    await database.open()
    images, quota, picture = ImageRepository(database), Usage(10, 10**9), jpeg()
    owner = uuid.uuid4()
    try:
        first = await images.create(new_image(picture, owner), quota, f"originals/{uuid.uuid4().hex}.jpg")
        assert first is not None
        async with database.transaction("test") as connection:
            await connection.execute("SELECT FROM blobs WHERE sha256 = $1 FOR UPDATE", first.sha256)
            waiting = asyncio.create_task(images.create(new_image(picture, owner), quota, None))
            own = asyncio.create_task(
                images.create(new_image(picture, uuid.uuid4()), quota, f"originals/{uuid.uuid4().hex}.jpg")
            )
            await asyncio.sleep(0.3)
            assert not waiting.done()
            assert not own.done()
            await connection.execute("SET LOCAL slipway_image.knows_blobs = 'yes'")
            await connection.execute("DELETE FROM images WHERE id = $1", first.id)
            await connection.execute("DELETE FROM blobs WHERE sha256 = $1", first.sha256)
        second = await own
        assert second is not None
        assert second.object_key != first.object_key
        # It came for the old blob: there is none, or already the new one; never the old one.
        late = await waiting
        assert late is None or late.object_key == second.object_key
    finally:
        await database.close()


async def test_the_store_refuses_other_bytes_than_were_hashed(platform: Platform, minio: ObjectStore) -> None:
    blobs = S3BlobStore(Settings(**platform.image_settings), CapacityMetrics(CollectorRegistry()))
    key = f"originals/{uuid.uuid4().hex}.jpg"
    with pytest.raises(Problem) as error:
        await blobs.put(key, io.BytesIO(b"other bytes"), 11, "image/jpeg", hashlib.sha256(b"bytes").hexdigest())
    assert error.value.code == "storage-unavailable"
    assert key not in minio.keys(BUCKET)
    await blobs.close()


@pytest.fixture
def old_database(postgres: Postgres) -> dict[str, Any]:
    """As the release before left it: the first migration, and rows of which some have the same bytes."""
    name = f"old_{uuid.uuid4().hex[:12]}"
    settings = postgres.create_database(name, name, "old")
    first = files("slipway_image").joinpath("migrations", "0001_images.sql").read_text()

    async def prepare() -> None:
        connection = await asyncpg.connect(
            host=postgres.host, port=postgres.port, database=name, user=name, password="old"
        )
        try:
            await connection.execute(first)
            await connection.execute(
                "CREATE TABLE schema_migrations (version text PRIMARY KEY, name text NOT NULL, "
                "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ('0001', 'images', $1)",
                hashlib.sha256(first.encode()).hexdigest(),
            )
        finally:
            await connection.close()

    asyncio.run(prepare())
    return settings


class ReleaseBefore:
    """What it does with the database and the bucket, word for word."""

    def __init__(self, connection: Any, minio: ObjectStore) -> None:
        self.connection = connection
        self.minio = minio

    async def store(self, owner: User, picture: bytes) -> str:
        id_ = uuid.uuid4()
        filename = f"{id_.hex}.jpg"
        key = f"originals/{filename}"
        put(self.minio, key, picture)
        sha256 = hashlib.sha256(picture).hexdigest()
        arguments = [id_, uuid.UUID(owner.id), filename, key, sha256, len(picture), "image/jpeg", 64, 48]
        await self.connection.fetchrow(RELEASE_BEFORE_CREATE, *arguments)
        return filename

    async def read(self, owner: User, filename: str) -> bytes:
        row = await self.connection.fetchrow(
            "SELECT object_key FROM images WHERE filename = $1 AND owner_id = $2", filename, uuid.UUID(owner.id)
        )
        answer = self.minio.client.get_object(BUCKET, row["object_key"])
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    async def delete(self, owner: User, filename: str) -> bool:
        row = await self.connection.fetchrow(RELEASE_BEFORE_DELETE, filename, uuid.UUID(owner.id))
        if row:
            self.minio.client.remove_object(BUCKET, row["object_key"])
        return bool(row)


def put(minio: ObjectStore, key: str, content: bytes) -> None:
    minio.client.put_object(BUCKET, key, io.BytesIO(content), len(content))


def test_images_of_the_release_before(
    platform: Platform, old_database: dict[str, Any], user: User, other_user: User, minio: ObjectStore
) -> None:
    twice, once = jpeg(), encoded("JPEG", 100, 80)
    changes = old_database | {"upload_max_bytes": 1_000_000}
    names: dict[str, str] = {}

    async def before() -> None:
        connection = await connect(old_database)
        release = ReleaseBefore(connection, minio)
        names["mine"] = await release.store(user, twice)
        names["theirs"] = await release.store(other_user, twice)
        names["once"] = await release.store(user, once)
        await connection.close()

    asyncio.run(before())
    assert copies(minio, twice) == 2
    asyncio.run(migrate(Settings(**(platform.image_settings | old_database)), "slipway_image"))
    with image_client(platform, **changes) as client:
        assert client.get(f"/images/{names['mine']}", headers=user.headers).content == twice
        assert client.get(f"/images/{names['theirs']}", headers=other_user.headers).content == twice
        assert client.get(f"/images/{names['once']}/160", headers=user.headers).status_code == 200
        assert client.get("/stats", headers=user.headers).json()["processing"]["uploads"]["count"] == 0
        # One of the two objects is an orphan now, the other one goes with the last image.
        assert client.delete(f"/images/{names['mine']}", headers=user.headers).status_code == 204
        assert client.get(f"/images/{names['theirs']}", headers=other_user.headers).content == twice
        assert client.delete(f"/images/{names['theirs']}", headers=other_user.headers).status_code == 204
    assert copies(minio, twice) == 1
    assert copies(minio, once) == 1


def test_the_release_before_goes_on_while_pods_are_replaced(
    platform: Platform, old_database: dict[str, Any], user: User, other_user: User, minio: ObjectStore
) -> None:
    asyncio.run(migrate(Settings(**(platform.image_settings | old_database)), "slipway_image"))
    pictures = [jpeg(5000 + number) for number in range(4)]

    async def both(client: httpx2.Client) -> None:
        connection = await connect(old_database)
        old = ReleaseBefore(connection, minio)
        # What one stores the other one can read.
        by_new = stored(client, user, pictures[0])["filename"]
        by_old = await old.store(user, pictures[1])
        assert await old.read(user, by_new) == pictures[0]
        assert client.get(f"/images/{by_old}", headers=user.headers).content == pictures[1]
        # The same bytes through both: one blob.
        shared = await old.store(other_user, pictures[0])
        assert await old.read(other_user, shared) == pictures[0]
        again = stored(client, other_user, pictures[1])["filename"]
        assert client.get(f"/images/{again}", headers=other_user.headers).content == pictures[1]
        # The old one does not know that others need the object: it is not let to delete, and answers 404.
        assert not await old.delete(user, by_new)
        assert not await old.delete(user, by_old)
        assert await old.read(other_user, shared) == pictures[0]
        assert client.delete(f"/images/{by_new}", headers=user.headers).status_code == 204
        # Now it is the last, and the old one may.
        assert await old.delete(other_user, shared)
        # The blob went too: the same bytes can come again.
        fresh = stored(client, user, pictures[0])["filename"]
        assert client.get(f"/images/{fresh}", headers=user.headers).content == pictures[0]
        assert await old.read(user, fresh) == pictures[0]
        await connection.close()

    with image_client(platform, **old_database) as client:
        asyncio.run(both(client))


async def connect(settings: dict[str, Any]) -> Any:
    return await asyncpg.connect(
        host=settings["database_host"],
        port=settings["database_port"],
        database=settings["database_name"],
        user=settings["database_user"],
        password=settings["database_password"],
    )
