"""Uploads that nobody should be able to make."""

import errno
import io
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator

import httpx2
import pytest
from slipway_image.completeness import is_complete
from slipway_testing.checks import assert_problem
from slipway_testing.image_client import image_client, metric, stored, upload
from slipway_testing.images import encoded, jpeg, png_bomb
from slipway_testing.platform import Platform, User

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def no_image(image: httpx2.Client, user: User) -> bool:
    items: list[object] = image.get("/images", headers=user.headers).json()["items"]
    return items == []


@pytest.mark.parametrize(
    "content",
    [
        SVG,
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7",
        b"MZ" + bytes(1000),
        b"BM" + bytes(1000),
        b"II*\x00" + bytes(1000),
        b"GIF88a" + bytes(1000),
        b"RIFF\x00\x00\x00\x00WAVE" + bytes(100),
        b"\x00\x00\x00\x20ftypmp42" + bytes(100),
        b"\x00" * 5000,
        b"x",
        b" " + jpeg(),
    ],
    ids=["svg", "html", "pdf", "exe", "bmp", "tiff", "gif88", "wav", "mp4", "zeros", "one byte", "space before jpeg"],
)
@pytest.mark.parametrize("kind", ["image/jpeg", "image/svg+xml"])
def test_what_is_not_an_image(image: httpx2.Client, user: User, content: bytes, kind: str) -> None:
    problem = assert_problem(upload(image, user, content, kind), 415, "unsupported-image")
    assert "image/jpeg" in problem["detail"]
    assert no_image(image, user)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(image: httpx2.Client, user: User, format_: str, share: float) -> None:
    whole = encoded(format_, 400, 300)
    assert upload(image, user, whole).status_code == 201
    assert_problem(upload(image, user, whole[: int(len(whole) * share)]), 422, "damaged-image")


def test_truncated_with_a_whole_thumbnail_inside(image: httpx2.Client, user: User) -> None:
    """A camera's JPEG carries a small one in its header, with an end of its own."""
    whole, thumbnail = encoded("JPEG", 400, 300), encoded("JPEG", 32, 24)
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    nested = whole[:2] + segment + whole[2:]
    assert upload(image, user, nested).status_code == 201
    assert_problem(upload(image, user, nested[:-1000]), 422, "damaged-image")


def test_a_film_behind_the_picture_is_kept(image: httpx2.Client, user: User) -> None:
    content = encoded("JPEG", 400, 300) + b"\x00\x00\x00\x20ftypmp42" + bytes(600_000)
    name = stored(image, user, content)["filename"]
    assert image.get(f"/images/{name}", headers=user.headers).content == content


SCRIPT = b"<script>alert(document.domain)</script>"


@pytest.mark.parametrize(
    "content",
    [
        encoded("JPEG", comment=SCRIPT),
        encoded("JPEG") + SCRIPT,
        # Starts as GIF and as JavaScript: GIF89a=...
        encoded("GIF", comment=b"*/=0;" + SCRIPT),
        encoded("PNG") + b"PK\x03\x04" + SCRIPT,
        encoded("WEBP", exif=b"Exif\x00\x00" + SCRIPT),
    ],
    ids=["jpeg and html", "jpeg before html", "gif and script", "png before zip", "webp and html"],
)
def test_polyglots_are_pictures_and_nothing_else(
    image: httpx2.Client, user: User, other_user: User, content: bytes
) -> None:
    """Kept as they came for who sent them, and never run; nobody else gets to see what is not a picture."""
    path = f"/images/{stored(image, user, content)['filename']}"
    own = image.get(path, headers=user.headers)
    assert own.content == content
    assert own.headers["content-type"].startswith("image/")
    assert own.headers["x-content-type-options"] == "nosniff"
    assert own.headers["content-security-policy"] == "default-src 'none'; sandbox"
    for address in (path, f"{path}/160"):
        assert SCRIPT not in image.get(address, headers=other_user.headers).content


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8\xff\xe0" + bytes(2000),
        b"\xff\xd8\xff\xd9",
        b"\x89PNG\r\n\x1a\n" + bytes(2000),
        b"GIF89a" + b"\xff" * 2000,
        b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(2000),
        b"\x00\x00\x00\x20ftypavif" + bytes(2000),
        encoded("PNG")[:40] + b"\x00" * 10 + encoded("PNG")[50:],
    ],
    ids=["jpeg", "empty jpeg", "png", "gif", "webp", "avif", "png with a wrong checksum"],
)
def test_a_signature_and_rubbish_behind_it(image: httpx2.Client, user: User, content: bytes) -> None:
    assert_problem(upload(image, user, content), 422, "damaged-image")


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (10_000, 5_001), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_does_not_go_off(image: httpx2.Client, user: User, width: int, height: int) -> None:
    started = time.monotonic()
    assert_problem(upload(image, user, png_bomb(width, height)), 422, "too-many-pixels")
    assert time.monotonic() - started < 5


def animation_header(width: int, height: int) -> bytes:
    """A WebP that claims to be huge: its decoder would make room for it as soon as it is opened."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\x00\x00\x00" + size


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (16_384, 16_384)])
def test_a_webp_bomb_is_no_picture_either(image: httpx2.Client, user: User, width: int, height: int) -> None:
    assert upload(image, user, animation_header(width, height)).status_code == 422


@pytest.mark.parametrize(
    ("width", "height", "code"),
    [(4000, 3000, None), (4000, 4200, "too-many-pixels")],
)
def test_what_does_not_fit_into_memory_is_refused(
    image: httpx2.Client, user: User, width: int, height: int, code: str | None
) -> None:
    """Below the limit of pixels, and still too large to make a variant of: 7.5 bytes for each, 104 MiB for all."""
    answer = upload(image, user, png_bomb(width, height))
    if code is None:
        assert answer.status_code == 201
    else:
        assert "takes 121 MiB, more than 104" in assert_problem(answer, 422, code)["detail"]


def test_texts_that_unpack_to_a_lot(image: httpx2.Client, user: User) -> None:
    """A kilobyte each in the file, a megabyte each in memory: Pillow reads them all when it opens a PNG."""
    packed = b"Comment\x00\x00" + zlib.compress(bytes(1_000_000))
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    picture = encoded("PNG")
    assert_problem(upload(image, user, picture[:33] + chunk * 10 + picture[33:]), 422, "damaged-image")
    assert upload(image, user, picture[:33] + chunk * 2 + picture[33:]).status_code == 201


def test_a_picture_that_is_complete_and_cannot_be_decoded(image: httpx2.Client, user: User) -> None:
    """Seen only when somebody wants a variant. It costs a try and no more."""
    picture = bytearray(encoded("PNG", 200, 200))
    start = picture.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", picture[start - 8 : start - 4])
    data = zlib.compress(b"\x09" + bytes(100))
    data += bytes(length - len(data))
    picture[start : start + length] = data
    picture[start + length : start + length + 4] = struct.pack(">I", zlib.crc32(b"IDAT" + data))
    name = stored(image, user, bytes(picture))["filename"]
    assert_problem(image.get(f"/images/{name}/160", headers=user.headers), 422, "damaged-image")
    assert image.get(f"/images/{name}", headers=user.headers).content == bytes(picture)


def test_no_pixels(image: httpx2.Client, user: User) -> None:
    assert_problem(upload(image, user, png_bomb(0, 10)), 422, "damaged-image")


@pytest.mark.parametrize("extra", [0, 1])
def test_the_size_limit_is_exact(platform: Platform, user: User, extra: int) -> None:
    with image_client(platform, upload_max_bytes=100_000) as client:
        answer = upload(client, user, jpeg(100_000 + extra))
        if extra:
            assert_problem(answer, 413, "image-too-large")
        else:
            assert answer.status_code == 201


def test_too_large_is_known_from_the_announcement(image: httpx2.Client, user: User) -> None:
    assert_problem(upload(image, user, jpeg(14_000_000)), 413, "body-too-large")


def test_too_large_without_an_announcement(platform: Platform, user: User) -> None:
    with image_client(platform, upload_max_bytes=100_000) as client:
        body = multipart(part(content=jpeg(300_000)))

        def chunked() -> Iterator[bytes]:
            yield from (body[start : start + 10_000] for start in range(0, len(body), 10_000))

        answer = client.post("/upload", content=chunked(), headers=user.headers | HEADERS)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


HEADERS = {"Content-Type": "multipart/form-data; boundary=cut"}


def part(name: str = "file", content: bytes = b"", disposition: str | None = None) -> bytes:
    shown = disposition or f'form-data; name="{name}"; filename="a.jpg"'
    return b"Content-Disposition: " + shown.encode() + b"\r\n\r\n" + content


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--cut\r\n" + each + b"\r\n" for each in parts) + b"--cut--\r\n"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-multipart"),
        (b"rubbish", 400, "malformed-multipart"),
        (b"--other\r\n", 400, "malformed-multipart"),
        (b"--cut\r\nno header\r\n\r\n", 400, "malformed-multipart"),
        (b"--cut\r\n" + part(content=jpeg()), 400, "malformed-multipart"),
        (b"--cut\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", 400, "malformed-multipart"),
        (b"--cut\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 400, "malformed-multipart"),
        (b"--cut--\r\n", 422, "file-missing"),
        (multipart(part()), 422, "file-empty"),
        (multipart(part("picture", jpeg())), 422, "unexpected-part"),
        (multipart(part("file", jpeg()), part("file", jpeg())), 422, "too-many-parts"),
        (multipart(part("owner_id", b"1"), part("file", jpeg())), 422, "unexpected-part"),
        (multipart(b"X: y\r\n\r\n" + jpeg()), 422, "unexpected-part"),
        (multipart(part(disposition="form-data; name*=UTF-8''file")), 422, "unexpected-part"),
    ],
)
def test_multipart_that_is_not_what_it_should_be(
    image: httpx2.Client, user: User, body: bytes, status: int, code: str
) -> None:
    assert_problem(image.post("/upload", content=body, headers=user.headers | HEADERS), status, code)


@pytest.mark.parametrize(
    "filename", ["../../etc/passwd", "a\\..\\b.jpg", "x" * 500 + ".jpg", "a\x00.php", "<script>.jpg", "日本.jpg", ""]
)
def test_the_name_of_the_client_is_not_used(image: httpx2.Client, user: User, filename: str) -> None:
    body = multipart(part(content=jpeg(), disposition=f'form-data; name="file"; filename="{filename}"'))
    answer = image.post("/upload", content=body, headers=user.headers | HEADERS)
    assert answer.status_code == 201
    assert len(answer.json()["filename"]) == 36


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        (None, 415, "not-multipart"),
        ("image/jpeg", 415, "not-multipart"),
        ("application/x-www-form-urlencoded", 415, "not-multipart"),
        ("multipart/mixed; boundary=cut", 415, "not-multipart"),
        ("multipart/form-data", 400, "malformed-multipart"),
        ("multipart/form-data; boundary=", 400, "malformed-multipart"),
        ("multipart/form-data; boundary=" + "x" * 71, 400, "malformed-multipart"),
    ],
)
def test_other_types_of_body(
    image: httpx2.Client, user: User, content_type: str | None, status: int, code: str
) -> None:
    headers = user.headers | ({"Content-Type": content_type} if content_type else {})
    assert_problem(image.post("/upload", content=multipart(part(content=jpeg())), headers=headers), status, code)


def test_without_a_token_the_body_is_not_waited_for(image: httpx2.Client) -> None:
    with connect(str(image.base_url)) as connection:
        connection.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_body_that_comes_too_slowly(platform: Platform, user: User) -> None:
    with platform.image(upload_receive_seconds=0.4) as server, connect(server.url) as connection:
        connection.sendall(head(platform, user) + b"--cut\r\n")
        answer = b""
        while received := connection.recv(4096):
            answer += received
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        assert b"urn:slipway:problem:upload-too-slow" in answer


def test_more_uploads_than_there_is_room_for(platform: Platform, user: User) -> None:
    with image_client(platform, upload_receiving=2, upload_wait_seconds=0.3) as client:
        waiting = [connect(str(client.base_url)) for _ in range(2)]
        for connection in waiting:
            connection.sendall(head(platform, user) + b"--cut\r\n")
        wait_for(client, 'capacity_used{name="receive"} 2.0')
        answer = upload(client, user, jpeg())
        assert_problem(answer, 503, "busy")
        assert answer.headers["retry-after"] == "1"
        for connection in waiting:
            connection.close()
        # Those who left make room for others.
        wait_for(client, 'capacity_used{name="receive"} 0.0')
        assert metric(client, 'image_uploads_total{result="client-left"}') == 2
        assert upload(client, user, jpeg()).status_code == 201


def test_a_full_disk_is_a_503(platform: Platform, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
    with image_client(platform, upload_in_memory=0) as client:
        answer = upload(client, user, jpeg())
        assert_problem(answer, 503, "no-space")
        assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("boxes", "complete"),
    [
        (struct.pack(">I4s", 8, b"ftyp"), True),
        (struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4), True),
        (struct.pack(">I4sQ", 1, b"mdat", 21) + bytes(4), False),
        (struct.pack(">I4s", 0, b"mdat") + bytes(100), True),
        (struct.pack(">I4s", 7, b"mdat"), False),
        (struct.pack(">I4s", 8, b"ftyp") + b"cut", False),
    ],
    ids=["one", "long", "long and cut", "to the end", "too short to be one", "cut head"],
)
def test_boxes_of_avif(boxes: bytes, complete: bool) -> None:
    assert is_complete(io.BytesIO(boxes), len(boxes), "AVIF") is complete


@pytest.mark.parametrize(
    ("content", "complete"),
    [
        (b"\xff\xd8" + b"\xff\xff\xff\xda\x00\x02" + b"\xff\xd9", True),
        (b"\xff\xd8" + b"\xff\xda\x00\x02" + bytes(300_000) + b"\xff\xd9" + bytes(600_000), True),
        (b"\xff\xd8" + b"\xff\xda\x00\x02" + bytes(300_000), False),
        (b"\xff\xd8" + b"rubbish", False),
        (b"\xff\xd8\xff", False),
    ],
    ids=["fill bytes", "end far from the end", "no end", "no markers", "nothing"],
)
def test_ends_of_jpeg(content: bytes, complete: bool) -> None:
    assert is_complete(io.BytesIO(content), len(content), "JPEG") is complete


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(platform: Platform, user: User) -> bytes:
    lines = [
        "POST /upload HTTP/1.1",
        "Host: x",
        *(f"{name}: {value}" for name, value in (user.headers | platform.service_headers("api", "image")).items()),
        "Content-Type: multipart/form-data; boundary=cut",
        "Content-Length: 100000",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def wait_for(client: httpx2.Client, text: str) -> None:
    deadline = time.monotonic() + 5
    while text not in client.get("/metrics").text:
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
