"""image over HTTP: what is stored is what came, and only its owner gets that."""

import hashlib
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from slipway_kit.revocations import REVOKED_SESSIONS
from slipway_testing.checks import assert_problem
from slipway_testing.image_client import image_client, metric, stored, upload
from slipway_testing.images import encoded, jpeg
from slipway_testing.minio import ObjectStore
from slipway_testing.outages import wire_to
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.processes import free_port
from slipway_testing.servers import live_asgi
from slipway_testing.tokens import hostile, mint
from slipway_testing.upstreams import read_body
from starlette.types import Receive, Scope, Send


@pytest.mark.parametrize(
    ("format_", "content_type", "extension"),
    [
        ("JPEG", "image/jpeg", "jpg"),
        ("PNG", "image/png", "png"),
        ("GIF", "image/gif", "gif"),
        ("WEBP", "image/webp", "webp"),
        ("AVIF", "image/avif", "avif"),
    ],
)
def test_upload_list_read_delete(
    image: httpx2.Client, user: User, minio: ObjectStore, format_: str, content_type: str, extension: str
) -> None:
    picture = encoded(format_, 120, 80)
    answer = upload(image, user, picture, "whatever.bin", "application/octet-stream")
    assert answer.status_code == 201, answer.text
    image_ = answer.json()
    filename = image_["filename"]
    url = f"https://slipway.test/api/v1/images/{filename}"
    assert answer.headers["location"] == url
    assert filename.endswith(f".{extension}")
    assert image_ == {
        "filename": filename,
        "url": url,
        "sha256": hashlib.sha256(picture).hexdigest(),
        "size": len(picture),
        "width": 120,
        "height": 80,
        "content_type": content_type,
        "created_at": image_["created_at"],
        "thumbnails": {"160": f"{url}/160", "480": f"{url}/480", "1200": f"{url}/1200"},
    }
    assert f"originals/{filename}" in minio.keys(BUCKET)
    assert image.get("/images", headers=user.headers).json() == {"items": [image_], "next_cursor": None}
    metadata = image.get(f"/images/{filename}/metadata", headers=user.headers).json()
    assert metadata == image_ | {"owned": True}
    read = image.get(f"/images/{filename}", headers=user.headers)
    assert (read.status_code, read.content) == (200, picture)
    assert read.headers["content-type"] == content_type
    assert read.headers["etag"] == f'"{image_["sha256"]}"'
    assert read.headers["vary"] == "Authorization"
    assert read.headers["content-disposition"] == f'inline; filename="{filename}"'
    assert read.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert read.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert read.headers["x-content-type-options"] == "nosniff"
    deleted = image.delete(f"/images/{filename}", headers=user.headers)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert f"originals/{filename}" not in minio.keys(BUCKET)
    assert_problem(image.get(f"/images/{filename}", headers=user.headers), 404, "image-not-found")
    assert_problem(image.delete(f"/images/{filename}", headers=user.headers), 404, "image-not-found")


def test_the_declared_type_does_not_count(image: httpx2.Client, user: User) -> None:
    answer = upload(image, user, encoded("PNG"), "photo.jpg", "image/jpeg").json()
    assert (answer["content_type"], answer["filename"][-4:]) == ("image/png", ".png")


def test_others_get_a_variant_and_cannot_delete(image: httpx2.Client, user: User, other_user: User) -> None:
    picture = jpeg(50_000)
    mine = stored(image, user, picture)
    path = f"/images/{mine['filename']}"
    seen = image.get(path, headers=other_user.headers)
    assert seen.status_code == 200
    assert seen.headers["content-type"] == "image/jpeg"
    assert seen.content != picture
    assert seen.headers["etag"] == f'"{hashlib.sha256(seen.content).hexdigest()}"'
    metadata = image.get(f"{path}/metadata", headers=other_user.headers).json()
    assert metadata == mine | {"owned": False, "sha256": None, "size": None}
    for size in ("160", "480", "1200"):
        assert image.get(f"{path}/{size}", headers=other_user.headers).status_code == 200
    assert_problem(image.delete(path, headers=other_user.headers), 404, "image-not-found")
    assert image.get("/images", headers=other_user.headers).json()["items"] == []
    assert image.get("/stats", headers=other_user.headers).json()["images"] == 0
    assert image.get(path, headers=user.headers).content == picture


def routes() -> list[tuple[str, str]]:
    name = f"{uuid.uuid4().hex}.jpg"
    return [
        ("POST", "/upload"),
        ("GET", "/images"),
        ("GET", "/stats"),
        ("GET", f"/images/{name}"),
        ("HEAD", f"/images/{name}"),
        ("GET", f"/images/{name}/metadata"),
        ("GET", f"/images/{name}/160"),
        ("HEAD", f"/images/{name}/160"),
        ("DELETE", f"/images/{name}"),
    ]


def test_a_token_is_required(image: httpx2.Client) -> None:
    for method, path in routes():
        answer = image.request(method, path)
        assert answer.status_code == 401, (method, path)
        if method != "HEAD":
            assert_problem(answer, 401, "token-required")


def test_only_declared_services_may_call(platform: Platform, user: User) -> None:
    refused = [
        platform.service_headers("demo", "image"),
        platform.service_headers("api", "auth"),
        platform.service_headers("api", "image", exp=1),
        {"X-Service-Token": user.token},
    ]
    with httpx2.Client(base_url=platform.url("image")) as client:
        for method, path in routes():
            answer = client.request(method, path, headers=user.headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("ServiceToken")
        for headers in refused:
            answer = client.get("/stats", headers=user.headers | headers)
            assert_problem(answer, 401, "invalid-service-token")
        # Nobody has to identify himself to probes and scrapes.
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            assert client.get(path).status_code == 200


def test_without_declared_callers_nobody_is_asked(platform: Platform, user: User) -> None:
    with platform.image(service_callers=" , ") as server:
        assert httpx2.get(f"{server.url}/stats", headers=user.headers).status_code == 200


def test_a_session_that_was_ended(image: httpx2.Client, platform: Platform) -> None:
    session = uuid.uuid4().hex
    headers = {"Authorization": f"Bearer {mint(platform.key, sid=session)}"}
    assert image.get("/stats", headers=headers).status_code == 200
    with closing(platform.redis.admin()) as redis:
        redis.zadd(REVOKED_SESSIONS, {session: time.time()})
    deadline = time.monotonic() + 10
    while (answer := image.get("/stats", headers=headers)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert_problem(answer, 401, "invalid-token")


def test_redis_is_away(platform: Platform, user: User) -> None:
    with image_client(platform, redis_port=free_port()) as client:
        assert upload(client, user, jpeg()).status_code == 201
        health = client.get("/health").json()
        assert (health["status"], health["checks"]["redis"]["status"]) == ("degraded", "down")
        assert client.get("/health/ready").status_code == 200


def test_every_hostile_token_is_refused(image: httpx2.Client, platform: Platform) -> None:
    for name, token in hostile(platform.key).items():
        answer = image.get("/stats", headers={b"Authorization": f"Bearer {token}".encode()})
        assert answer.status_code == 401, name


def test_identity_headers_are_not_believed(image: httpx2.Client, user: User) -> None:
    assert image.get("/stats", headers={"X-User-Id": user.id}).status_code == 401


def test_stats(platform: Platform, user: User) -> None:
    pictures = [jpeg(), jpeg(5000), encoded("PNG")]
    with image_client(platform, quota_images=7, quota_bytes=10_000_000) as client:
        empty = client.get("/stats", headers=user.headers).json()
        assert empty == {
            "images": 0,
            "bytes": 0,
            "by_type": {},
            "quota": {"images": 7, "bytes": 10_000_000},
            "processing": {
                "uploads": {"count": 0, "average_ms": 0, "max_ms": 0},
                "variants": {"count": 0, "average_ms": 0, "max_ms": 0},
            },
        }
        names = [stored(client, user, picture)["filename"] for picture in pictures]
        assert client.get(f"/images/{names[0]}/160", headers=user.headers).status_code == 200
        stats = client.get("/stats", headers=user.headers).json()
    processing = stats.pop("processing")
    assert stats == {
        "images": 3,
        "bytes": sum(map(len, pictures)),
        "by_type": {
            "image/jpeg": {"images": 2, "bytes": len(pictures[0]) + 5000},
            "image/png": {"images": 1, "bytes": len(pictures[2])},
        },
        "quota": {"images": 7, "bytes": 10_000_000},
    }
    for kind, count in (("uploads", 3), ("variants", 1)):
        assert processing[kind]["count"] == count
        assert 0 < processing[kind]["average_ms"] <= processing[kind]["max_ms"]


def test_pages(image: httpx2.Client, user: User) -> None:
    names = [stored(image, user, jpeg())["filename"] for _ in range(5)][::-1]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = image.get("/images", params={"limit": 2, "cursor": cursor}, headers=user.headers).json()
        seen += [item["filename"] for item in body["items"]]
        cursor = body["next_cursor"]
    assert seen == names


@pytest.mark.parametrize("name", ["x", "..%2f..%2fetc%2fpasswd", "0" * 32, "0" * 32 + ".jpg%00", "0" * 31 + "g.jpg"])
def test_names_that_were_never_given(image: httpx2.Client, user: User, name: str) -> None:
    assert image.get(f"/images/{name}", headers=user.headers).status_code in (404, 422)


def test_many_at_once(image: httpx2.Client, user: User) -> None:
    pictures = [jpeg(1_000_000 + number) for number in range(24)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda picture: upload(image, user, picture), pictures))
    assert [answer.status_code for answer in answers] == [201] * len(pictures)
    sums = {answer.json()["sha256"] for answer in answers}
    assert sums == {hashlib.sha256(picture).hexdigest() for picture in pictures}


def test_the_object_store_is_away(image: httpx2.Client, platform: Platform, user: User) -> None:
    name = stored(image, user, jpeg())["filename"]
    with image_client(platform, s3_endpoint=f"http://127.0.0.1:{free_port()}") as client:
        for answer in (
            upload(client, user, jpeg()),
            client.get(f"/images/{name}", headers=user.headers),
            client.get(f"/images/{name}/160", headers=user.headers),
        ):
            assert_problem(answer, 503, "storage-unavailable")
            assert answer.headers["retry-after"] == "2"
        assert metric(client, 'image_uploads_total{result="storage-unavailable"}') == 1
        # No row without its bytes.
        assert len(client.get("/images", headers=user.headers).json()["items"]) == 1
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["checks"]["storage"]["status"] == "down"
        assert client.get("/health/ready").status_code == 200


def test_the_object_store_hangs(platform: Platform, minio: ObjectStore, user: User) -> None:
    """Told before the gateway stops waiting (15 s), and everything else goes on."""
    line = wire_to(minio.url)
    try:
        with image_client(platform, s3_endpoint=line.url, s3_read_timeout=1) as client:
            assert upload(client, user, jpeg()).status_code == 201
            line.set("hanging")
            started = time.monotonic()
            assert_problem(upload(client, user, jpeg()), 503, "storage-unavailable")
            assert time.monotonic() - started < 5
            assert len(client.get("/images", headers=user.headers).json()["items"]) == 1
            line.set("open")
            assert upload(client, user, jpeg()).status_code == 201
    finally:
        line.close()


def test_a_store_that_answers_with_rubbish(platform: Platform, user: User) -> None:
    async def teapot(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    with live_asgi(teapot) as store, image_client(platform, s3_endpoint=store.url) as client:
        assert_problem(upload(client, user, jpeg()), 503, "storage-unavailable")


def test_a_wrong_bucket_is_seen_in_health(platform: Platform) -> None:
    with platform.image(s3_bucket="nowhere") as server:
        assert httpx2.get(f"{server.url}/health").json()["checks"]["storage"]["status"] == "down"


def test_bytes_that_are_lost_are_not_a_404(
    image: httpx2.Client, user: User, other_user: User, minio: ObjectStore
) -> None:
    path = f"/images/{stored(image, user, jpeg())['filename']}"
    minio.client.remove_object(BUCKET, f"originals/{path.removeprefix('/images/')}")
    assert_problem(image.get(path, headers=user.headers), 500, "image-lost")
    assert_problem(image.get(path, headers=other_user.headers), 500, "image-lost")
    # Its owner can get rid of it all the same.
    assert image.delete(path, headers=user.headers).status_code == 204


def test_a_delete_while_the_object_store_is_away_leaves_an_orphan_that_is_counted(
    image: httpx2.Client, platform: Platform, user: User, minio: ObjectStore
) -> None:
    name = stored(image, user, jpeg())["filename"]
    with image_client(platform, s3_endpoint=f"http://127.0.0.1:{free_port()}") as client:
        assert client.delete(f"/images/{name}", headers=user.headers).status_code == 204
        assert metric(client, "image_orphans_total") == 1
    assert f"originals/{name}" in minio.keys(BUCKET)
    assert image.get(f"/images/{name}", headers=user.headers).status_code == 404


def test_the_database_is_away(platform: Platform, user: User, minio: ObjectStore) -> None:
    before = minio.keys(BUCKET)
    with image_client(platform, database_port=free_port()) as client:
        assert_problem(upload(client, user, jpeg()), 503, "database-unavailable")
        assert client.get("/health/ready").status_code == 503
    assert minio.keys(BUCKET) == before


def test_nothing_stays_in_the_temporary_directory(
    platform: Platform, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with image_client(platform) as client:
        name = stored(client, user, jpeg(3_000_000))["filename"]
        assert upload(client, user, b"x" * 3_000_000).status_code == 415
        assert client.get(f"/images/{name}/160", headers=user.headers).status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_metrics(platform: Platform, user: User) -> None:
    picture = encoded("WEBP", 300, 200)
    with image_client(platform) as client:
        name = stored(client, user, picture)["filename"]
        stored(client, user, picture)
        client.get(f"/images/{name}/160", headers=user.headers)
        upload(client, user, b"rubbish")
        for line, value in {
            'image_uploads_total{result="stored"}': 1,
            'image_uploads_total{result="duplicate"}': 1,
            'image_uploads_total{result="unsupported-image"}': 1,
            'image_stored_total{content_type="image/webp"}': 2,
            "image_upload_bytes_total": 2 * len(picture),
            'image_variant_seconds_count{variant="160"}': 1,
            'image_upload_stage_seconds_count{stage="receive"}': 3,
            'image_upload_stage_seconds_count{stage="inspect"}': 3,
            'image_upload_stage_seconds_count{stage="store"}': 2,
            'http_requests_total{method="POST",route="/upload",status="201"}': 2,
            'http_requests_total{method="GET",route="/images/{filename}/{size}",status="200"}': 1,
        }.items():
            assert metric(client, line) == value, line
        assert 'capacity_used{name="receive"} 0.0' in client.get("/metrics").text
        assert 'capacity_used{name="render"} 0.0' in client.get("/metrics").text


def test_what_there_is_altogether(image: httpx2.Client, platform: Platform, user: User) -> None:
    picture = encoded("PNG", 200, 100)
    for _ in range(2):
        stored(image, user, picture)
    ((images,),) = platform.postgres.query("image_db", "SELECT count(*) FROM images WHERE content_type = 'image/png'")
    ((originals,),) = platform.postgres.query("image_db", "SELECT sum(size)::bigint FROM blobs")
    # Counted at the start, and then every half minute.
    with image_client(platform) as client:
        deadline = time.monotonic() + 10
        while metric(client, 'images_stored_bytes{kind="originals"}') != originals:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert metric(client, 'images_stored{content_type="image/png"}') == images >= 2


def test_the_numbers_stay_while_the_database_is_away(platform: Platform) -> None:
    with image_client(platform, database_port=free_port()) as client:
        deadline = time.monotonic() + 10
        while metric(client, 'db_unavailable_total{query="images.totals"}') < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/health/live").status_code == 200
