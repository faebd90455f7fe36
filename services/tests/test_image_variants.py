"""Variants over HTTP: made once, when somebody asks, and kept in the bucket."""

import hashlib
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import slipway_image.variants
from PIL import Image
from slipway_image.rendering import render
from slipway_testing.checks import assert_problem
from slipway_testing.image_client import image_client, metric, stored, upload
from slipway_testing.images import encoded, jpeg
from slipway_testing.minio import ObjectStore
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.processes import free_port


def variants_of(minio: ObjectStore, picture: bytes) -> set[str]:
    prefix = f"variants/{hashlib.sha256(picture).hexdigest()}/"
    return {key for key in minio.keys(BUCKET) if key.startswith(prefix)}


@pytest.mark.parametrize("size", [160, 480, 1200])
def test_thumbnails(platform: Platform, user: User, minio: ObjectStore, size: int) -> None:
    picture = encoded("PNG", 1500, 1000)
    with image_client(platform) as client:
        name = stored(client, user, picture)["filename"]
        path = f"/images/{name}/{size}"
        assert variants_of(minio, picture) == set()
        first = client.get(path, headers=user.headers)
        second = client.get(path, headers=user.headers)
        assert metric(client, f'image_variant_seconds_count{{variant="{size}"}}') == 1
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"] == f'"{hashlib.sha256(first.content).hexdigest()}"'
    assert first.headers["content-type"] == "image/jpeg"
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert first.headers["content-disposition"] == f'inline; filename="{name[:32]}-{size}.jpg"'
    assert Image.open(io.BytesIO(first.content)).size == (size, round(size / 1.5))
    (key,) = variants_of(minio, picture)
    assert key.rpartition("/")[2].startswith(f"{size}-")


def test_transparent_thumbnails_are_webp(image: httpx2.Client, user: User) -> None:
    picture = Image.new("RGBA", (300, 200), (255, 0, 0, 100))
    out = io.BytesIO()
    picture.save(out, "PNG")
    name = stored(image, user, out.getvalue())["filename"]
    answer = image.get(f"/images/{name}/160", headers=user.headers)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-disposition"] == f'inline; filename="{name[:32]}-160.webp"'
    assert Image.open(io.BytesIO(answer.content)).mode == "RGBA"


@pytest.mark.parametrize("size", ["0", "161", "-160", "160.0", "0160", "full", "shared", "%31%36%30x", "160%00"])
def test_other_sizes_are_not_made(image: httpx2.Client, user: User, size: str) -> None:
    name = stored(image, user, jpeg())["filename"]
    assert image.get(f"/images/{name}/{size}", headers=user.headers).status_code in (404, 422)


def test_images_of_the_same_bytes_share_variants(
    platform: Platform, user: User, other_user: User, minio: ObjectStore
) -> None:
    picture = encoded("JPEG", 300, 200)
    with image_client(platform) as client:
        names = [stored(client, owner, picture)["filename"] for owner in (user, other_user)]
        answers = [client.get(f"/images/{name}/160", headers=user.headers) for name in names]
        assert answers[0].content == answers[1].content
        assert metric(client, 'image_variant_seconds_count{variant="160"}') == 1
        # They go with the last image.
        assert client.delete(f"/images/{names[0]}", headers=user.headers).status_code == 204
        assert len(variants_of(minio, picture)) == 1
        assert client.delete(f"/images/{names[1]}", headers=other_user.headers).status_code == 204
    assert variants_of(minio, picture) == set()


def test_many_who_ask_at_the_same_time_wait_for_one(platform: Platform, user: User, minio: ObjectStore) -> None:
    picture = encoded("PNG", 1500, 1000)
    with image_client(platform) as client:
        name = stored(client, user, picture)["filename"]
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: client.get(f"/images/{name}/480", headers=user.headers), range(12)))
        assert [answer.status_code for answer in answers] == [200] * 12
        assert len({answer.content for answer in answers}) == 1
        assert metric(client, 'image_variant_seconds_count{variant="480"}') == 1
    assert len(variants_of(minio, picture)) == 1


class Slow:
    """Stands before `render`: as many threads as wanted come in, and wait until they may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = threading.Semaphore(0)
        self.go_on = threading.Event()
        monkeypatch.setattr(slipway_image.variants, "render", self)

    def __call__(self, *arguments: Any) -> Any:
        self.inside.release()
        assert self.go_on.wait(10)
        return render(*arguments)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.inside.acquire(timeout=10)


def test_the_first_who_leaves_spoils_it_for_nobody(
    platform: Platform, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    with image_client(platform) as client, ThreadPoolExecutor(1) as pool:
        path = f"/images/{stored(client, user, jpeg())['filename']}/160"
        with pytest.raises(httpx2.ReadTimeout):
            client.get(path, headers=user.headers, timeout=0.3)
        slow.wait_for(1)
        second = pool.submit(client.get, path, headers=user.headers)
        time.sleep(0.1)
        slow.go_on.set()
        assert second.result().status_code == 200
        assert metric(client, 'image_variant_seconds_count{variant="160"}') == 1


def test_a_variant_of_what_is_deleted_meanwhile(
    platform: Platform, user: User, minio: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, picture = Slow(monkeypatch), jpeg()
    with image_client(platform) as client, ThreadPoolExecutor(1) as pool:
        path = f"/images/{stored(client, user, picture)['filename']}"
        asked = pool.submit(client.get, f"{path}/160", headers=user.headers)
        slow.wait_for(1)
        assert client.delete(path, headers=user.headers).status_code == 204
        slow.go_on.set()
        assert_problem(asked.result(), 404, "image-not-found")
    assert variants_of(minio, picture) == set()


def test_two_replicas_make_the_same(
    platform: Platform, user: User, minio: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, picture = Slow(monkeypatch), jpeg()
    with image_client(platform) as one, image_client(platform) as two, ThreadPoolExecutor(2) as pool:
        path = f"/images/{stored(one, user, picture)['filename']}/160"
        asked = [pool.submit(client.get, path, headers=user.headers) for client in (one, two)]
        slow.wait_for(2)
        slow.go_on.set()
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["etag"] == answers[1].headers["etag"]
    assert len(variants_of(minio, picture)) == 1


def test_more_than_can_be_made(platform: Platform, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with image_client(platform, variant_wait_seconds=0.2) as client, ThreadPoolExecutor(1) as pool:
        paths = [f"/images/{stored(client, user, jpeg())['filename']}/160" for _ in range(2)]
        first = pool.submit(client.get, paths[0], headers=user.headers)
        slow.wait_for(1)
        assert 'capacity_used{name="render"} 1.0' in client.get("/metrics").text
        answer = client.get(paths[1], headers=user.headers)
        assert_problem(answer, 503, "busy")
        assert answer.headers["retry-after"] == "1"
        # Everything that is no new variant goes on.
        assert upload(client, user, jpeg()).status_code == 201
        slow.go_on.set()
        assert first.result().status_code == 200
        assert client.get(paths[1], headers=user.headers).status_code == 200


def test_a_lost_variant_is_made_again(image: httpx2.Client, user: User, minio: ObjectStore) -> None:
    picture = jpeg()
    path = f"/images/{stored(image, user, picture)['filename']}/160"
    first = image.get(path, headers=user.headers)
    (key,) = variants_of(minio, picture)
    minio.client.remove_object(BUCKET, key)
    assert image.get(path, headers=user.headers).content == first.content
    assert len(variants_of(minio, picture)) == 1


def test_a_lost_variant_that_comes_out_different(
    image: httpx2.Client, platform: Platform, user: User, minio: ObjectStore
) -> None:
    """Under the old ETag nobody gets the new bytes: this request fails, the next one has it."""
    picture = jpeg()
    path = f"/images/{stored(image, user, picture)['filename']}/160"
    image.get(path, headers=user.headers)
    (key,) = variants_of(minio, picture)
    minio.client.remove_object(BUCKET, key)
    platform.postgres.query("image_db", "UPDATE variants SET sha256 = $1 WHERE object_key = $2", "0" * 64, key)
    assert_problem(image.get(path, headers=user.headers), 500, "image-lost")
    assert image.get(path, headers=user.headers).status_code == 200


def test_variants_of_another_recipe_are_made_anew(
    image: httpx2.Client, platform: Platform, user: User, minio: ObjectStore
) -> None:
    picture = jpeg()
    path = f"/images/{stored(image, user, picture)['filename']}/160"
    image.get(path, headers=user.headers)
    (key,) = variants_of(minio, picture)
    platform.postgres.query("image_db", "UPDATE variants SET recipe = 0 WHERE object_key = $1", key)
    assert image.get(path, headers=user.headers).status_code == 200
    assert len(variants_of(minio, picture)) == 2


def test_what_is_known_needs_no_object_store(image: httpx2.Client, platform: Platform, user: User) -> None:
    path = f"/images/{stored(image, user, jpeg())['filename']}/160"
    etag = image.get(path, headers=user.headers).headers["etag"]
    with image_client(platform, s3_endpoint=f"http://127.0.0.1:{free_port()}") as client:
        assert client.get(path, headers=user.headers | {"If-None-Match": etag}).status_code == 304
        assert client.head(path, headers=user.headers).status_code == 200


def test_a_stop_does_not_wait_for_what_nobody_waits_for(
    platform: Platform, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    with image_client(platform) as client:
        path = f"/images/{stored(client, user, jpeg())['filename']}/160"
        with pytest.raises(httpx2.ReadTimeout):
            client.get(path, headers=user.headers, timeout=0.3)
        slow.wait_for(1)
        # The thread cannot be stopped, and is not waited for longer than it takes.
        slow.go_on.set()
