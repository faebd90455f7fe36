"""image over HTTP: what is stored is what came, and only its owner gets it."""

import hashlib
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from slipway_testing.checks import assert_problem
from slipway_testing.images import encoded, jpeg
from slipway_testing.minio import ObjectStore
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.processes import free_port
from slipway_testing.tokens import hostile


def upload(
    client: httpx2.Client, user: User, picture: bytes, name: str = "a.jpg", kind: str = "image/jpeg"
) -> httpx2.Response:
    return client.post("/upload", files={"file": (name, picture, kind)}, headers=user.headers)


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
    stored = answer.json()
    filename = stored["filename"]
    assert filename.endswith(f".{extension}")
    assert stored == {
        "filename": filename,
        "url": f"https://slipway.test/api/v1/images/{filename}",
        "sha256": hashlib.sha256(picture).hexdigest(),
        "size": len(picture),
        "width": 120,
        "height": 80,
        "content_type": content_type,
        "created_at": stored["created_at"],
    }
    assert f"originals/{filename}" in minio.keys(BUCKET)
    assert image.get("/images", headers=user.headers).json() == {"items": [stored], "next_cursor": None}
    read = image.get(f"/images/{filename}", headers=user.headers)
    assert (read.status_code, read.content) == (200, picture)
    assert read.headers["content-type"] == content_type
    assert read.headers["etag"] == f'"{stored["sha256"]}"'
    assert read.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert read.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert read.headers["x-content-type-options"] == "nosniff"
    deleted = image.delete(f"/images/{filename}", headers=user.headers)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert f"originals/{filename}" not in minio.keys(BUCKET)
    assert_problem(image.get(f"/images/{filename}", headers=user.headers), 404, "image-not-found")
    assert_problem(image.delete(f"/images/{filename}", headers=user.headers), 404, "image-not-found")


def test_the_declared_type_does_not_count(image: httpx2.Client, user: User) -> None:
    stored = upload(image, user, encoded("PNG"), "photo.jpg", "image/jpeg").json()
    assert (stored["content_type"], stored["filename"][-4:]) == ("image/png", ".png")


def test_what_the_client_knows_is_not_sent_again(image: httpx2.Client, user: User) -> None:
    stored = upload(image, user, jpeg()).json()
    etag = f'"{stored["sha256"]}"'
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = image.get(f"/images/{stored['filename']}", headers=user.headers | {"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    answer = image.get(f"/images/{stored['filename']}", headers=user.headers | {"If-None-Match": '"other"'})
    assert answer.status_code == 200


def test_somebody_elses_image_does_not_exist(image: httpx2.Client, user: User, other_user: User) -> None:
    stored = upload(image, user, jpeg()).json()
    path = f"/images/{stored['filename']}"
    assert_problem(image.get(path, headers=other_user.headers), 404, "image-not-found")
    assert_problem(image.delete(path, headers=other_user.headers), 404, "image-not-found")
    assert image.get("/images", headers=other_user.headers).json()["items"] == []
    assert image.get("/stats", headers=other_user.headers).json() == {"images": 0, "bytes": 0, "by_type": {}}
    assert image.get(path, headers=user.headers).status_code == 200


def test_a_token_is_required(image: httpx2.Client) -> None:
    name = f"{uuid.uuid4().hex}.jpg"
    for method, path in (
        ("POST", "/upload"),
        ("GET", "/images"),
        ("GET", "/stats"),
        ("GET", f"/images/{name}"),
        ("DELETE", f"/images/{name}"),
    ):
        assert_problem(image.request(method, path), 401, "token-required")


def test_every_hostile_token_is_refused(image: httpx2.Client, platform: Platform) -> None:
    for name, token in hostile(platform.key).items():
        answer = image.get("/stats", headers={b"Authorization": f"Bearer {token}".encode()})
        assert answer.status_code == 401, name


def test_identity_headers_are_not_believed(image: httpx2.Client, user: User) -> None:
    assert image.get("/stats", headers={"X-User-Id": user.id}).status_code == 401


def test_stats(image: httpx2.Client, user: User) -> None:
    pictures = [jpeg(), jpeg(5000), encoded("PNG")]
    for picture in pictures:
        assert upload(image, user, picture).status_code == 201
    assert image.get("/stats", headers=user.headers).json() == {
        "images": 3,
        "bytes": sum(map(len, pictures)),
        "by_type": {
            "image/jpeg": {"images": 2, "bytes": len(pictures[0]) + 5000},
            "image/png": {"images": 1, "bytes": len(pictures[2])},
        },
    }


def test_pages(image: httpx2.Client, user: User) -> None:
    names = [upload(image, user, jpeg()).json()["filename"] for _ in range(5)][::-1]
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


def test_the_object_store_is_away(platform: Platform, user: User) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    with platform.image(s3_endpoint=endpoint) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        answer = upload(client, user, jpeg())
        assert_problem(answer, 503, "storage-unavailable")
        assert answer.headers["retry-after"] == "2"
        # No row without its bytes.
        assert client.get("/images", headers=user.headers).json()["items"] == []
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["checks"]["storage"]["status"] == "down"
        assert client.get("/health/ready").status_code == 200


def test_a_wrong_bucket_is_seen_in_health(platform: Platform) -> None:
    with platform.image(s3_bucket="nowhere") as server:
        assert httpx2.get(f"{server.url}/health").json()["checks"]["storage"]["status"] == "down"


def test_bytes_that_are_lost_are_not_a_404(image: httpx2.Client, user: User, minio: ObjectStore) -> None:
    stored = upload(image, user, jpeg()).json()
    minio.client.remove_object(BUCKET, f"originals/{stored['filename']}")
    assert_problem(image.get(f"/images/{stored['filename']}", headers=user.headers), 500, "image-lost")
    # Its owner can get rid of it all the same.
    assert image.delete(f"/images/{stored['filename']}", headers=user.headers).status_code == 204


def test_a_delete_while_the_object_store_is_away_leaves_an_orphan_that_is_counted(
    image: httpx2.Client, platform: Platform, user: User, minio: ObjectStore
) -> None:
    stored = upload(image, user, jpeg()).json()
    endpoint = f"http://127.0.0.1:{free_port()}"
    with platform.image(s3_endpoint=endpoint) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        assert client.delete(f"/images/{stored['filename']}", headers=user.headers).status_code == 204
        assert "image_orphans_total 1.0" in client.get("/metrics").text
    assert f"originals/{stored['filename']}" in minio.keys(BUCKET)
    assert image.get(f"/images/{stored['filename']}", headers=user.headers).status_code == 404


def test_a_row_that_cannot_be_written_leaves_no_object(platform: Platform, user: User, minio: ObjectStore) -> None:
    before = minio.keys(BUCKET)
    with platform.image(database_port=free_port()) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        assert_problem(upload(client, user, jpeg()), 503, "database-unavailable")
        assert client.get("/health/ready").status_code == 503
    assert minio.keys(BUCKET) == before


def test_nothing_stays_in_the_temporary_directory(
    platform: Platform, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with platform.image() as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        assert upload(client, user, jpeg(3_000_000)).status_code == 201
        assert upload(client, user, b"x" * 3_000_000).status_code == 415
    assert list(tmp_path.iterdir()) == []


def test_metrics(image: httpx2.Client, user: User) -> None:
    upload(image, user, jpeg())
    text = image.get("/metrics").text
    for line in (
        'image_uploads_total{content_type="image/jpeg"}',
        "image_upload_bytes_total",
        'image_upload_stage_seconds_count{stage="receive"}',
        'image_upload_stage_seconds_count{stage="inspect"}',
        'image_upload_stage_seconds_count{stage="store"}',
        'http_requests_total{method="POST",route="/upload",status="201"}',
        'capacity_used{name="receive"} 0.0',
    ):
        assert line in text
