"""Uploads that mean harm, as they arrive: through the gateway, which passes bodies on without looking at them.

After each of them nothing is registered, nothing is stored, and the next upload of an honest user works.
"""

import io
import select
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator

import httpx2
import pytest
from PIL import Image, ImageFile
from slipway_testing.images import encoded, jpeg, png_bomb
from slipway_testing.platform import BUCKET, Platform, User
from slipway_testing.servers import listen

pytestmark = pytest.mark.slow

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(document.cookie)</script>"
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF")
TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "AVIF": "image/avif"}
BOUNDARY = "cut"


@pytest.fixture
def stored(platform: Platform) -> Iterator[None]:
    """Nothing may be left behind in the store by what was refused."""
    before = platform.store.keys(BUCKET)
    yield
    assert platform.store.keys(BUCKET) == before


def upload(
    api: httpx2.Client, user: User, content: bytes, kind: str = "image/jpeg", name: str = "a.jpg"
) -> httpx2.Response:
    return api.post("/api/v1/images", files={"file": (name, content, kind)}, headers=user.headers)


def refused(api: httpx2.Client, user: User, answer: httpx2.Response, status: int, code: str) -> None:
    """As told, nothing registered, and the service goes on."""
    assert_problem_of_upload(answer, status, code)
    assert api.get("/api/v1/images", headers=user.headers).json()["items"] == []
    stats = api.get("/api/v1/images/stats", headers=user.headers).json()
    assert (stats["images"], stats["bytes"]) == (0, 0)


def assert_problem_of_upload(answer: httpx2.Response, status: int, code: str) -> None:
    """The image service wrote it, so `instance` is its path; all else is as everywhere."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:slipway:problem:{code}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]


# Not an image


@pytest.mark.parametrize("declared", ["image/jpeg", "image/svg+xml", "application/octet-stream", "text/html"])
@pytest.mark.parametrize(
    "content",
    [
        SVG,
        b'<?xml version="1.0"?>' + SVG,
        b"\xef\xbb\xbf" + SVG,
        zlib.compress(SVG),
        HTML,
        b"%PDF-1.7\n",
        b"MZ" + bytes(512),
        b"\x7fELF" + bytes(512),
        b"#!/bin/sh\nid\n",
        b"<?php system($_GET[0]); ?>",
        b"II*\x00" + bytes(512),
        b"8BPS" + bytes(512),
        b"BM" + bytes(512),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\x00\x00\x01\x00" + bytes(512),
        b"push graphic-context\nviewbox 0 0 1 1\nfill 'url(https://example.org/\"|id\")'\n",
    ],
    ids=[
        "svg",
        "xml",
        "bom",
        "svgz",
        "html",
        "pdf",
        "exe",
        "elf",
        "sh",
        "php",
        "tiff",
        "psd",
        "bmp",
        "eps",
        "ico",
        "mvg",
    ],
)
@pytest.mark.usefixtures("stored")
def test_what_is_not_one_of_the_five_kinds(api: httpx2.Client, user: User, content: bytes, declared: str) -> None:
    refused(api, user, upload(api, user, content, declared), 415, "unsupported-image")


# Two things at once


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("META-INF/MANIFEST.MF", "Main-Class: Evil\n")
    return out.getvalue()


@pytest.mark.parametrize(
    "tail", [HTML, SVG, archive(), b"<?php system($_GET[0]); ?>"], ids=["html", "svg", "jar", "php"]
)
@pytest.mark.parametrize("format_", FORMATS)
def test_a_polyglot_is_only_ever_an_image(
    api: httpx2.Client, user: User, other_user: User, format_: str, tail: bytes
) -> None:
    """An image with something else behind it: refused, or served so that nothing takes it for the something else."""
    content = encoded(format_, 200, 150) + tail
    answer = upload(api, user, content, "text/html", "a.html")
    if answer.status_code != 201:
        refused(api, user, answer, 422, "damaged-image")
        return
    stored = answer.json()
    assert stored["content_type"] == TYPES[format_]
    mine = api.get(f"/api/v1/images/{stored['filename']}", headers=user.headers)
    assert mine.content == content
    safe_to_show(mine, TYPES[format_])
    # Nobody else gets the tail, in no form.
    for path in ("", "/160", "/480", "/1200"):
        theirs = api.get(f"/api/v1/images/{stored['filename']}{path}", headers=other_user.headers)
        assert theirs.status_code == 200, (path, theirs.text)
        assert tail[:20] not in theirs.content
        safe_to_show(theirs, theirs.headers["content-type"])
        Image.open(io.BytesIO(theirs.content)).load()


def safe_to_show(answer: httpx2.Response, kind: str) -> None:
    assert answer.headers["content-type"] == kind
    assert kind.startswith("image/")
    assert answer.headers["x-content-type-options"] == "nosniff"
    disposition = answer.headers["content-disposition"]
    assert disposition.split(";")[0] in ("inline", "attachment")
    assert "html" not in disposition


def test_a_script_in_the_metadata_is_for_its_owner_only(api: httpx2.Client, user: User, other_user: User) -> None:
    exif = Image.Exif()
    exif[0x010E] = HTML.decode()
    content = encoded("JPEG", 200, 150, exif=exif, comment=HTML)
    name = upload(api, user, content).json()["filename"]
    assert HTML in api.get(f"/api/v1/images/{name}", headers=user.headers).content
    for path in ("", "/160"):
        theirs = api.get(f"/api/v1/images/{name}{path}", headers=other_user.headers)
        assert theirs.status_code == 200
        assert b"<script>" not in theirs.content


# Mislabelled


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "label", [("a.png", "image/png"), ("a.exe", "application/x-msdownload"), ("a.svg", "image/svg+xml")]
)
def test_the_bytes_say_what_it_is(api: httpx2.Client, user: User, format_: str, label: tuple[str, str]) -> None:
    content = encoded(format_, 200, 150)
    stored = upload(api, user, content, label[1], label[0]).json()
    assert stored["content_type"] == TYPES[format_]
    assert stored["filename"].rpartition(".")[2] == {"JPEG": "jpg"}.get(format_, format_.lower())
    answer = api.get(f"/api/v1/images/{stored['filename']}", headers=user.headers)
    safe_to_show(answer, TYPES[format_])


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "a\r\nX-Evil: 1.jpg", 'a"; filename="b.jpg', "\x00.jpg", "x" * 4000, "con.jpg"]
)
def test_the_name_is_nowhere(api: httpx2.Client, user: User, name: str) -> None:
    shown = name.replace("\r\n", "%0D%0A")
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{shown}"\r\n\r\n'
    body = part.encode("latin-1") + jpeg() + f"\r\n--{BOUNDARY}--\r\n".encode()
    answer = api.post("/api/v1/images", content=body, headers=user.headers | MULTIPART)
    if answer.status_code == 201:
        stored = answer.json()
        download = api.get(f"/api/v1/images/{stored['filename']}", headers=user.headers)
        assert "evil" not in str(download.headers).lower()
        assert name not in str(download.headers)
        assert len(stored["filename"]) == 36
    else:
        refused(api, user, answer, 400, "malformed-multipart")


# Damaged


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.usefixtures("stored")
def test_truncated(api: httpx2.Client, user: User, format_: str, share: float) -> None:
    whole = encoded(format_, 400, 300)
    refused(api, user, upload(api, user, whole[: int(len(whole) * share)]), 422, "damaged-image")


@pytest.mark.parametrize("format_", FORMATS)
def test_bits_turned_round_break_nothing(api: httpx2.Client, user: User, other_user: User, format_: str) -> None:
    """An image with rubbish in the middle is refused or taken; neither it nor its thumbnails are ever a 500."""
    whole = bytearray(encoded(format_, 400, 300))
    for start in range(len(whole) // 3, len(whole) - 64, max(1, len(whole) // 7)):
        damaged = bytes(whole[:start] + bytes(255 - byte for byte in whole[start : start + 48]) + whole[start + 48 :])
        answer = upload(api, user, damaged)
        assert answer.status_code in (201, 415, 422), answer.text
        if answer.status_code == 201:
            for path in ("", "/160"):
                shown = api.get(f"/api/v1/images/{answer.json()['filename']}{path}", headers=other_user.headers)
                assert shown.status_code in (200, 422), (start, shown.text)


# Bombs


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (1, 2**31 - 1), (7_100, 7_100)])
@pytest.mark.usefixtures("stored")
def test_too_many_pixels(api: httpx2.Client, user: User, width: int, height: int) -> None:
    started = time.monotonic()
    refused(api, user, upload(api, user, png_bomb(width, height), "image/png"), 422, "too-many-pixels")
    assert time.monotonic() - started < 3


@pytest.mark.usefixtures("stored")
def test_fifty_thousand_squared_in_other_formats(api: httpx2.Client, user: User) -> None:
    """Heads that promise 50 000 x 50 000; GIF and JPEG say so in two bytes a side."""
    gif = b"GIF89a" + struct.pack("<HH", 50_000, 50_000) + b"\x80\x00\x00" + bytes(6) + b"\x2c" + bytes(4)
    gif += struct.pack("<HH", 50_000, 50_000) + b"\x00\x02\x02\x4c\x01\x00\x3b"
    picture = bytearray(jpeg())
    frame = picture.index(b"\xff\xc0")
    picture[frame + 5 : frame + 9] = struct.pack(">HH", 50_000, 50_000)
    for content in (gif, bytes(picture)):
        refused(api, user, upload(api, user, content), 422, "too-many-pixels")


def test_a_real_bomb_goes_off_nowhere(api: httpx2.Client, user: User, other_user: User) -> None:
    """49 million pixels of nothing, allowed by a hair: some KiB that are 150 MB when decoded. It may be refused or
    served, but what is running beside it goes on, and memory is bounded by the pool that decodes."""
    out = io.BytesIO()
    Image.new("1", (7_000, 7_000)).save(out, "PNG", optimize=True)
    answer = upload(api, user, out.getvalue(), "image/png")
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        name = answer.json()["filename"]
        for path in ("", "/160"):
            shown = api.get(f"/api/v1/images/{name}{path}", headers=other_user.headers)
            assert shown.status_code in (200, 503), shown.text
    assert upload(api, other_user, jpeg()).status_code == 201


def test_an_animation_of_a_thousand_pictures(api: httpx2.Client, user: User, other_user: User) -> None:
    """Pixels times frames is the work of whoever re-encodes it: the first picture is enough, or none is."""
    frames = [Image.new("P", (600, 600), color) for color in range(200)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=10)
    started = time.monotonic()
    answer = upload(api, user, out.getvalue(), "image/gif")
    assert answer.status_code in (201, 422)
    if answer.status_code == 201:
        shown = api.get(f"/api/v1/images/{answer.json()['filename']}/160", headers=other_user.headers)
        assert shown.status_code == 200
        assert max(Image.open(io.BytesIO(shown.content)).size) <= 160
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("stored")
def test_a_bomb_in_a_chunk_beside_the_picture(api: httpx2.Client, user: User) -> None:
    """Text of a PNG is compressed too: 64 MiB of it in 64 KiB, which no reader may unpack."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    whole = encoded("PNG")
    bomb = chunk(b"zTXt", b"comment\x00\x00" + zlib.compress(bytes(64 * 1024 * 1024), 9))
    answer = upload(api, user, whole[:33] + bomb + whole[33:], "image/png")
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        name = answer.json()["filename"]
        shown = api.get(f"/api/v1/images/{name}/160", headers=user.headers)
        assert shown.status_code == 200
        assert api.delete(f"/api/v1/images/{name}", headers=user.headers).status_code == 204


# Too large, too slow


@pytest.mark.usefixtures("stored")
def test_too_large_by_what_it_says(api: httpx2.Client, user: User) -> None:
    answer = upload(api, user, jpeg(13 * 1024 * 1024))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.usefixtures("stored")
def test_too_large_without_saying_so(platform: Platform, user: User) -> None:
    """The answer comes when the limit is passed, not when the sender has had enough."""
    piece = bytes(1024 * 1024)
    with connect(platform.url("api")) as client:
        client.sendall(raw_head(user, "Transfer-Encoding: chunked"))
        client.sendall(chunk(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'.encode()))
        sent = 0
        while not select.select([client], [], [], 0)[0]:
            client.sendall(chunk(piece))
            sent += 1
            # Far more than the limit, because it takes its time through two services; far less than for ever.
            assert sent < 200, "200 MiB, and nobody has complained"
        assert client.recv(64).startswith(b"HTTP/1.1 413 ")


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.usefixtures("stored")
def test_too_slow(platform: Platform, user: User) -> None:
    """A trickle is ended by a deadline for the whole body, not by a pause between two of its bytes."""
    sock = listen()
    with (
        platform.image(sock, upload_receive_seconds=1.0) as image,
        platform.api(image_url=image.url) as gateway,
        connect(gateway.url) as client,
    ):
        client.sendall(raw_head(user, "Content-Length: 100000") + f"--{BOUNDARY}\r\n".encode())
        answer, started = b"", time.monotonic()
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.1):
                try:
                    client.sendall(b"-")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            while b"\r\n\r\n" not in answer and (received := client.recv(4096)):
                answer += received
        finally:
            ended.set()
            thread.join()
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert time.monotonic() - started < 5


@pytest.mark.usefixtures("stored")
def test_somebody_who_leaves_in_the_middle(platform: Platform, api: httpx2.Client, user: User) -> None:
    for _ in range(5):
        with connect(platform.url("api")) as client:
            client.sendall(raw_head(user, "Content-Length: 1000000") + f"--{BOUNDARY}\r\n".encode() + jpeg())
    assert api.get("/api/v1/images", headers=user.headers).json()["items"] == []


# The form around it

MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(*parts: tuple[str, bytes]) -> bytes:
    shown = (f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return b"".join(shown) + f"--{BOUNDARY}--\r\n".encode()


FILE = 'form-data; name="file"; filename="a.jpg"'


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-multipart"),
        (b"\r\n" * 50_000, 400, "malformed-multipart"),
        (b"--other\r\n" + FILE.encode(), 400, "malformed-multipart"),
        (form((FILE, jpeg()))[:-6], 400, "malformed-multipart"),
        (f"--{BOUNDARY}\r\n".encode() * 1000, 400, "malformed-multipart"),
        (f"--{BOUNDARY}\r\n".encode() + b"A: b\r\n" * 5000, 400, "malformed-multipart"),
        (form((FILE, b"")), 422, "file-empty"),
        (form(('form-data; name="image"; filename="a.jpg"', jpeg())), 422, "unexpected-part"),
        (form(('form-data; name="owner_id"', b"1"), (FILE, jpeg())), 422, "unexpected-part"),
        (form((FILE, jpeg()), (FILE, jpeg())), 422, "too-many-parts"),
        (form(*[(FILE, b"")] * 1000), 422, "too-many-parts"),
    ],
    ids=[
        "empty",
        "lines",
        "other boundary",
        "no end",
        "boundaries",
        "headers",
        "no bytes",
        "other name",
        "field",
        "two",
        "1000",
    ],
)
@pytest.mark.usefixtures("stored")
def test_wrong_multipart(api: httpx2.Client, user: User, body: bytes, status: int, code: str) -> None:
    answer = api.post("/api/v1/images", content=body, headers=user.headers | MULTIPART)
    if code == "too-many-parts":
        # An empty first part may be complained about before the second is seen.
        assert answer.status_code == status, answer.text
        return
    refused(api, user, answer, status, code)


@pytest.mark.parametrize(
    "content_type",
    ["", "image/jpeg", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300],
)
@pytest.mark.usefixtures("stored")
def test_wrong_type_of_body(api: httpx2.Client, user: User, content_type: str) -> None:
    headers = user.headers | ({"Content-Type": content_type} if content_type else {})
    answer = api.post("/api/v1/images", content=form((FILE, jpeg())), headers=headers)
    assert answer.status_code in (400, 415)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 10", "Transfer-Encoding: chunked"],
        ["Content-Length: 10", "Content-Length: 20"],
        ["Content-Length: +10"],
        ["Content-Length: 0x10"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
    ],
)
def test_lengths_that_disagree(platform: Platform, user: User, lines: list[str]) -> None:
    """Two readers of one connection must not see different requests (smuggling): it is refused and closed, or read by
    the one rule of RFC 9112; the hidden request is never answered."""
    with connect(platform.url("api")) as client:
        head = ["POST /api/v1/images HTTP/1.1", "Host: x", f"Authorization: Bearer {user.token}", *lines, "", ""]
        hidden = "0\r\n\r\nGET /api/v1/posts/my HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall("\r\n".join(head).encode() + hidden.encode())
        client.settimeout(2)
        answer = b""
        try:
            while received := client.recv(4096):
                answer += received
        except TimeoutError:
            pass
        statuses = [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        assert statuses, "no answer at all"
        assert statuses[0].startswith(b"4")
        assert len(statuses) == 1, answer


def test_nobody_uploads(api: httpx2.Client) -> None:
    """The body is not even taken in."""
    with connect(str(api.base_url)) as client:
        client.sendall(b"POST /api/v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 12000000\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 401 ")


def test_decoders_that_forgive_are_off() -> None:
    """Pillow can be told to show what is cut off; then a truncated image would pass."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def raw_head(user: User, framing: str) -> bytes:
    lines = [
        "POST /api/v1/images HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {user.token}",
        f"Content-Type: {MULTIPART['Content-Type']}",
        framing,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
