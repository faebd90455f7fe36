"""The end-to-end check against a small platform of its own: what it sees, what it says, what it leaves behind."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import io
import ipaddress
import json
import os
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

import smoke_check  # noqa: E402

PASSWORD = "a password of the test"
PICTURE = smoke_check.jpeg
PAGE = {"/": '<script type="module" crossorigin src="/assets/index-a1.js"></script>', "/assets/index-a1.js": "run()"}
LONG_AGO = "2020-01-01T00:00:00Z"


class Platform:
    """What users see of the platform, in memory. `broken` maps a method and path to the status to answer instead."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.posts: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.bytes: dict[str, bytes] = {}
        self.broken: dict[str, int] = {}
        self.requests: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        for pattern, status in self.broken.items():
            if re.fullmatch(pattern, f"{method} {path}"):
                return status, {"title": "Broken", "detail": "on purpose"}
        if path in PAGE:
            return 200, PAGE[path]
        if path == "/api/v1/auth/register":
            account = json.loads(body)
            if account["username"] in self.users:
                return 409, {"title": "Taken"}
            self.users[account["username"]] = account["password"]
            return 201, {}
        if path == "/api/v1/auth/login":
            account = json.loads(body)
            known = self.users.get(account["username"]) == account["password"]
            return (200, {"access_token": "good"}) if known else (401, {"title": "Unauthorized"})
        if (method, path) == ("GET", "/api/v1/posts?limit=20"):
            return 200, {"items": list(self.posts.values())}
        if token != "Bearer good":
            return 401, {"title": "Unauthorized"}
        return self.personal(method, path.partition("?")[0], body)

    def personal(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        name = path.rpartition("/")[2]
        if (method, path) == ("POST", "/api/v1/posts"):
            post = {"id": f"p{len(self.requests)}", "created_at": now(), **json.loads(body)}
            self.posts[post["id"]] = post
            return 201, post
        if path == "/api/v1/posts/my":
            return 200, {"items": list(self.posts.values())}
        if (method, path) == ("POST", "/api/v1/images"):
            return 201, self.store(body)
        if path == "/api/v1/images":
            return 200, {"items": list(self.images.values())}
        if path == "/api/v1/images/stats":
            return 200, {"images": len(self.images), "bytes": sum(map(len, self.bytes.values()))}
        if method == "DELETE":
            found = self.posts.pop(name, None) or self.images.pop(name, None)
            self.bytes.pop(name, None)
            return (204, None) if found else (404, {"title": "Not found"})
        return (200, self.bytes[name]) if name in self.bytes else (404, {"title": "Not found"})

    def store(self, body: bytes) -> dict[str, Any]:
        content = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        filename = f"{len(self.requests)}.jpg"
        self.bytes[filename] = content
        self.images[filename] = {
            "filename": filename,
            "url": f"{self.url}/api/v1/images/{filename}",
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "content_type": "image/jpeg",
            "created_at": now(),
        }
        return self.images[filename]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


def handler(platform: Platform) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = platform.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            kind = "image/jpeg" if isinstance(content, bytes) else "application/json"
            if isinstance(content, str):
                kind, content = "text/html" if content.startswith("<") else "text/javascript", content.encode()
            data = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = reply  # noqa: N815 - the names that http.server looks for

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


def certificate(directory: Path, issuer: str) -> tuple[Path, Path]:
    """A CA's certificate, and a server certificate for the test's name, signed by it, with its key in one file."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    base = x509.CertificateBuilder().not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    ca = (
        base.subject_name(name(issuer))
        .issuer_name(name(issuer))
        .public_key(ca_key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("slipway.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    own = (
        base.subject_name(name("slipway.test"))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(2)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / f"{issuer}.crt").write_bytes(ca.public_bytes(pem))
    (directory / f"{issuer}-server.pem").write_bytes(own.public_bytes(pem) + private)
    return directory / f"{issuer}.crt", directory / f"{issuer}-server.pem"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the CA's certificate and the server's."""
    return certificate(tmp_path_factory.mktemp("ca"), "right")


@pytest.fixture
def platform() -> Platform:
    """Return a platform that works."""
    return Platform()


@pytest.fixture
def target(
    platform: Platform, authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[smoke_check.Target]:
    """Return where the platform is served."""
    ca, server_certificate = authority
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(platform))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    platform.url = f"https://slipway.test:{server.server_port}"
    # Port 80 of a test machine is not the test's.
    monkeypatch.setattr(smoke_check.Check, "redirect", lambda self: "not looked at")
    monkeypatch.setattr(smoke_check, "RETRY_SECONDS", 0.01)
    # Ten megabytes are for one test.
    monkeypatch.setattr(smoke_check, "jpeg", lambda: os.urandom(10_000))
    yield smoke_check.Target(platform.url, ca, ("127.0.0.1",), "smoke", PASSWORD)
    server.shutdown()
    thread.join()
    server.server_close()


def test_green(platform: Platform, target: smoke_check.Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_check, "jpeg", PICTURE)
    result = smoke_check.check(target)
    assert result.green, result.table()
    assert len(result.steps) == 10
    assert result.registered
    assert (platform.posts, platform.images) == ({}, {}), "it leaves something behind"


def test_the_account_is_used_again(platform: Platform, target: smoke_check.Target) -> None:
    assert smoke_check.check(target).registered
    assert not smoke_check.check(target).registered
    assert list(platform.users) == ["smoke"]


def test_another_password_is_said_to_be_one(platform: Platform, target: smoke_check.Target) -> None:
    platform.users["smoke"] = "another"
    result = smoke_check.check(target)
    assert result.failed
    assert result.failed.name == "Log in"
    assert "exists with another password" in result.hint
    assert PASSWORD not in "\n".join(result.table())


@pytest.mark.parametrize(
    ("broken", "status", "step", "hint"),
    [
        ("GET /", 502, "Open the page", "SERVICE=web"),
        ("GET /assets/.*", 404, "Open the page", "SERVICE=web"),
        ("POST /api/v1/auth/login", 503, "Log in", "SERVICE=auth"),
        ("POST /api/v1/posts", 201, "Refuse without a token", "SERVICE=api"),
        ("GET /api/v1/posts.limit=20", 500, "Read it, as anybody", "SERVICE=api"),
        ("POST /api/v1/images", 413, "Refuse without a token", "SERVICE=api"),
        ("GET /api/v1/images/[0-9].*", 404, "Read it back, same SHA-256", "SERVICE=image"),
        ("GET /api/v1/images/stats", 504, "Find it in the statistics", "SERVICE=image"),
        ("DELETE /api/v1/images/.*", 500, "Delete both", "SERVICE=image"),
    ],
)
def test_the_first_thing_that_is_wrong(
    platform: Platform, target: smoke_check.Target, broken: str, status: int, step: str, hint: str
) -> None:
    platform.broken[broken] = status
    result = smoke_check.check(target)
    assert result.failed
    assert result.failed.name == step
    assert f"answered {status} (Broken: on purpose), wanted " in result.failed.detail
    assert hint in result.hint
    assert result.table()[-1] == f"where to look: {result.hint}"


@pytest.mark.parametrize(
    ("path", "content", "found"),
    [
        ("/", "nothing of a page", "text/javascript with no script"),
        ("/", "<h1>It works!</h1>", "text/html with no script"),
        ("/assets/index-a1.js", "<h1>the page once more</h1>", "gave text/html, wanted text/javascript"),
    ],
)
def test_another_page(
    target: smoke_check.Target, monkeypatch: pytest.MonkeyPatch, path: str, content: str, found: str
) -> None:
    monkeypatch.setitem(PAGE, path, content)
    result = smoke_check.check(target)
    assert result.failed
    assert result.failed.name == "Open the page"
    assert found in result.failed.detail


def test_other_bytes_than_those_that_were_sent(platform: Platform, target: smoke_check.Target) -> None:
    store = platform.store

    def damaged(body: bytes) -> dict[str, Any]:
        stored = store(body)
        platform.bytes[stored["filename"]] = platform.bytes[stored["filename"]][:-1] + b"x"
        return stored

    platform.store = damaged  # type: ignore[method-assign]
    result = smoke_check.check(target)
    assert result.failed
    assert result.failed.name == "Read it back, same SHA-256"
    assert (platform.posts, platform.images) == ({}, {}), "a failed run leaves something behind"


def test_what_interrupted_runs_left_is_removed(platform: Platform, target: smoke_check.Target) -> None:
    platform.users["smoke"] = PASSWORD
    platform.posts["old"] = {"id": "old", "created_at": LONG_AGO}
    platform.posts["of-a-run-beside-this"] = {"id": "of-a-run-beside-this", "created_at": now()}
    platform.images["old.jpg"] = {"filename": "old.jpg", "created_at": LONG_AGO}
    result = smoke_check.check(target)
    assert result.green
    assert result.steps[-1].detail == "and 2 of interrupted runs"
    assert list(platform.posts) == ["of-a-run-beside-this"]


def test_a_host_that_is_down_is_passed_over(target: smoke_check.Target) -> None:
    closed = "127.0.0.2"
    others = smoke_check.Target(target.url, target.ca, (closed, "127.0.0.1"), "smoke", PASSWORD)
    assert smoke_check.check(others).green


def test_nobody_answers(authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_check.Check, "redirect", lambda self: "not looked at")
    target = smoke_check.Target("https://slipway.test:1", authority[0], ("127.0.0.1", "127.0.0.2"), "smoke", PASSWORD)
    result = smoke_check.check(target)
    assert result.failed
    assert "127.0.0.1:1 Connection refused, 127.0.0.2:1 Connection refused" in result.failed.detail


def test_the_certificate_of_another_ca_is_refused(target: smoke_check.Target, tmp_path: Path) -> None:
    wrong, _ = certificate(tmp_path, "wrong")
    result = smoke_check.check(smoke_check.Target(target.url, wrong, ("127.0.0.1",), "smoke", PASSWORD))
    assert result.failed
    assert "the certificate is not one of the platform's CA" in result.failed.detail


def test_it_tries_again_until_it_is_green(platform: Platform, target: smoke_check.Target) -> None:
    platform.broken["GET /api/v1/images/stats"] = 503
    threading.Timer(1, platform.broken.clear).start()
    result = smoke_check.check_until(target, 60)
    assert result.green
    assert result.attempts > 1
    assert result.seconds >= 1
    assert (platform.posts, platform.images) == ({}, {})


def test_it_does_not_try_for_ever(platform: Platform, target: smoke_check.Target) -> None:
    platform.broken["POST /api/v1/auth/login"] = 503
    result = smoke_check.check_until(target, 0.2)
    assert not result.green
    assert result.seconds < 5


def test_the_picture_is_a_picture_of_that_size() -> None:
    first, second = PICTURE(), PICTURE(8_000_003)
    assert (len(first), len(second)) == (10_000_000, 8_000_003)
    assert hashlib.sha256(first).digest() != hashlib.sha256(second).digest()
    picture = Image.open(io.BytesIO(second))
    picture.load()
    assert picture.format == "JPEG"


def test_the_table_is_aligned() -> None:
    result = smoke_check.Result(
        steps=[smoke_check.Step("Log in", 0.2, "as smoke"), smoke_check.Step("Upload", 1.25)],
        failed=smoke_check.Step("Read", 10.0, "GET / answered 500, wanted 200"),
        hint="make logs SERVICE=api",
    )
    assert result.table() == [
        "Log in  ok       0.20 s  as smoke",
        "Upload  ok       1.25 s",
        "Read    FAILED  10.00 s  GET / answered 500, wanted 200",
        "where to look: make logs SERVICE=api",
    ]
