"""The end-to-end check: what a user does, over HTTPS and with the platform's CA, from outside of the cluster.

`check` runs the steps once, `check_until` until they are all green or time is up. Also a program of its own:

    SMOKE_PASSWORD=... python plugins/module_utils/smoke_check.py --url https://slipway.test --ca ca.crt \
        --address 10.66.0.21 --address 10.66.0.11 --deadline 120
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import secrets
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

IMAGE_BYTES = 10_000_000
CONNECT_SECONDS = 3
# One request, the upload included. Far above what it takes, so that only something broken comes here.
REQUEST_SECONDS = 30
RETRY_SECONDS = 1.0
RETRY_SECONDS_AT_MOST = 5.0
# What an interrupted run left is removed by a later one; what a run beside this one works on is not.
LEFTOVER_AGE = timedelta(minutes=15)


class StepError(Exception):
    """A step that is not as it should be: what was wrong and where to look."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True)
class Target:
    """Where the platform is. Without addresses its name is looked up, as a browser does."""

    url: str
    ca: Path
    addresses: tuple[str, ...] = ()
    username: str = "smoke"
    password: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 443


@dataclass
class Step:
    name: str
    seconds: float
    detail: str = ""


@dataclass
class Result:
    steps: list[Step] = field(default_factory=list)
    failed: Step | None = None
    hint: str = ""
    registered: bool = False
    attempts: int = 1
    seconds: float = 0.0

    @property
    def green(self) -> bool:
        return self.failed is None

    def table(self) -> list[str]:
        steps = [*self.steps, self.failed] if self.failed else self.steps
        width = max((len(step.name) for step in steps), default=0)
        lines = []
        for step in steps:
            word = "FAILED" if step is self.failed else "ok"
            lines.append(f"{step.name:<{width}}  {word:<6}  {step.seconds:5.2f} s  {step.detail}".rstrip())
        return [*lines, f"where to look: {self.hint}"] if self.failed else lines


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def summary(self) -> str:
        """The reason in an error's body (RFC 9457), or its first words."""
        content = self.json()
        if isinstance(content, dict) and content.get("title"):
            return ": ".join(str(part) for part in (content["title"], content.get("detail")) if part)
        return " ".join(self.body[:200].decode(errors="replace").split())


class Client:
    """HTTPS with the given CA and nothing else, to the first address that answers."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._tls = ssl.create_default_context(cafile=str(target.ca))
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._addresses = list(target.addresses or (target.host,))
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def request(
        self,
        method: str,
        path: str,
        *,
        wanted: int,
        hint: str,
        token: str = "",
        content: Any = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        headers = {"User-Agent": "slipway-smoke", "Accept": "application/json, */*"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if content is not None:
            body = json.dumps(content).encode()
        if body is not None:
            headers["Content-Type"] = content_type
        what = f"{method} {self.target.url}{path}"
        try:
            connection = self._connect()
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise StepError(
                f"{what}: the certificate is not one of the platform's CA ({error.verify_message})",
                f"the certificate that the ingress serves, and {self.target.ca}",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise StepError(f"{what}: {_words(error)}", hint) from error
        if response.will_close:
            self.close()
        if answer.status != wanted:
            if (
                path.startswith("/api/")
                and answer.status >= 404
                and "json" not in answer.headers.get("Content-Type", "")
            ):
                # Our services explain themselves in JSON: this comes from the ingress, which found none.
                hint = f"kubectl -n api get pods,ingress, and the ingress itself: {Check.INGRESS}"
            raise StepError(f"{what} answered {answer.status} ({answer.summary()}), wanted {wanted}", hint)
        return answer

    def plain(self) -> Answer:
        """One request over plain HTTP, to see where it leads."""
        connection = http.client.HTTPConnection(self.target.host, 80, timeout=CONNECT_SECONDS)
        with contextlib.closing(connection):
            connection.sock = self._open(80)
            connection.request("GET", "/", headers={"User-Agent": "slipway-smoke"})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            raw = self._open(self.target.port)
            raw.settimeout(REQUEST_SECONDS)
            # The socket is made here, and http.client only speaks over it: this is the resolve override.
            connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=REQUEST_SECONDS)
            try:
                connection.sock = self._tls.wrap_socket(raw, server_hostname=self.target.host)
            except BaseException:
                raw.close()
                raise
            self._connection = connection
        return self._connection

    def _open(self, port: int) -> socket.socket:
        """The addresses in turn; the one that answered last time comes first."""
        problems = []
        for address in list(self._addresses):
            try:
                opened = socket.create_connection((address, port), timeout=CONNECT_SECONDS)
            except OSError as error:
                problems.append(f"{address}:{port} {_words(error)}")
                continue
            # As http.client does for sockets of its own: headers and body are two packets that need not wait.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._addresses.remove(address)
            self._addresses.insert(0, address)
            return opened
        raise OSError(", ".join(problems))


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def jpeg(size: int = IMAGE_BYTES) -> bytes:
    """A picture that nobody has seen before: noise, and comments up to exactly `size` bytes."""
    from PIL import Image  # the one thing here that is not Python's own

    width, height = 1600, 1200
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), secrets.token_bytes(width * height * 3)).save(out, "JPEG", quality=80)
    picture = out.getvalue()
    missing = size - len(picture)
    if missing < 4:
        raise ValueError(f"a picture of {size} bytes is smaller than its pixels, {len(picture)}")
    pieces = [picture[:2]]
    while missing:
        # A comment has 4 bytes of its own and at most 65533 of text, and must not leave a rest too small for another.
        piece = min(missing, 65537)
        if 0 < missing - piece < 4:
            piece -= 4
        pieces.append(b"\xff\xfe" + struct.pack(">H", piece - 2) + secrets.token_bytes(piece - 4))
        missing -= piece
    return b"".join([*pieces, picture[2:]])


def multipart(name: str, filename: str, content_type: str, content: bytes) -> tuple[bytes, str]:
    boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


class Check:
    """The steps of a user, in their order; each one uses what the ones before it made."""

    INGRESS = "kubectl -n ingress-nginx get pods -o wide"
    AUTH = "make logs SERVICE=auth, and Postgres: kubectl -n infrastructure get pods"
    API = "make logs SERVICE=api, and Postgres: kubectl -n infrastructure get pods"
    WEB = f"make logs SERVICE=web, and the ingress: {INGRESS}"
    IMAGE = "make logs SERVICE=image, and MinIO: kubectl -n infrastructure get pods"

    def __init__(self, target: Target) -> None:
        self.target = target
        self.client = Client(target)
        self.registered = False
        self.token = ""
        self.post: dict[str, Any] = {}
        self.image: dict[str, Any] = {}
        self.picture = b""

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "HTTP leads to HTTPS", self.redirect
        yield "Open the page", self.page
        yield "Log in", self.log_in
        yield "Refuse without a token", self.refuse
        yield "Create a post", self.create_post
        yield "Read it, as anybody", self.read_post
        yield f"Upload a JPEG of {IMAGE_BYTES // 1_000_000} MB", self.upload
        yield "Read it back, same SHA-256", self.download
        yield "Find it in the statistics", self.stats
        yield "Delete both", self.clean_up

    def redirect(self) -> str:
        try:
            answer = self.client.plain()
        except (OSError, http.client.HTTPException) as error:
            raise StepError(f"GET http://{self.target.host}/: {_words(error)}", self.INGRESS) from error
        location = answer.headers.get("Location", "")
        if answer.status not in (301, 308) or not location.startswith(f"https://{self.target.host}"):
            found = f"{answer.status}, Location {location or 'none'}"
            raise StepError(
                f"GET http://{self.target.host}/ answered {found}, wanted a redirect to HTTPS", self.INGRESS
            )
        return f"{answer.status} to {location}"

    def page(self) -> str:
        """The page and its program; that a browser can use them is shown elsewhere."""
        answer = self.client.request("GET", "/", wanted=200, hint=self.WEB)
        kind = answer.headers.get_content_type()
        found = re.search(rb'<script[^>]* src="(/[^"]+\.js)"', answer.body)
        if kind != "text/html" or not found:
            what = f"{kind} with {'a' if found else 'no'} script"
            raise StepError(f"GET {self.target.url}/ gave {what}, wanted text/html with a script", self.WEB)
        script = found[1].decode()
        content = self.client.request("GET", script, wanted=200, hint=self.WEB)
        if "javascript" not in content.headers.get_content_type():
            kind = content.headers.get_content_type()
            raise StepError(f"GET {self.target.url}{script} gave {kind}, wanted text/javascript", self.WEB)
        return f"and its script of {len(content.body)} bytes"

    def log_in(self) -> str:
        account = {"username": self.target.username, "password": self.target.password}
        path = "/api/v1/auth/login"
        try:
            answer = self.client.request("POST", path, wanted=200, hint=self.AUTH, content=account)
        except StepError as failure:
            if " answered 401 " not in failure.problem:
                raise
            # The first run in this environment; if the account is there, only its password is another.
            hint = f"the account {self.target.username} exists with another password than the environment's secrets say"
            self.client.request("POST", "/api/v1/auth/register", wanted=201, hint=hint, content=account)
            self.registered = True
            answer = self.client.request("POST", path, wanted=200, hint=self.AUTH, content=account)
        self.token = str(answer.json().get("access_token", ""))
        if not self.token:
            raise StepError(f"POST {self.target.url}{path} gave no access_token", self.AUTH)
        return f"{'registered ' if self.registered else ''}as {self.target.username}"

    def refuse(self) -> str:
        post = {"title": "smoke", "content": "without a token"}
        body, kind = multipart("file", "smoke.jpg", "image/jpeg", b"no picture")
        self.client.request("POST", "/api/v1/posts", wanted=401, hint=self.API, content=post)
        self.client.request("GET", "/api/v1/posts/my", wanted=401, hint=self.API, token="not.a.token")  # noqa: S106
        self.client.request("GET", "/api/v1/images", wanted=401, hint=self.API)
        self.client.request("POST", "/api/v1/images", wanted=401, hint=self.API, body=body, content_type=kind)
        return "401 four times"

    def create_post(self) -> str:
        content = {"title": "smoke", "content": f"The platform works: {secrets.token_hex(8)}"}
        path = "/api/v1/posts"
        answer = self.client.request("POST", path, wanted=201, hint=self.API, token=self.token, content=content)
        self.post = answer.json()
        return str(self.post.get("id", ""))

    def read_post(self) -> str:
        for path, token in (("/api/v1/posts?limit=20", ""), ("/api/v1/posts/my?limit=20", self.token)):
            found = self.client.request("GET", path, wanted=200, hint=self.API, token=token).json().get("items", [])
            same = [post for post in found if post.get("id") == self.post.get("id")]
            if not same or same[0].get("content") != self.post.get("content"):
                raise StepError(f"GET {self.target.url}{path}: the new post is not in it", self.API)
        return "in the public list and in its author's"

    def upload(self) -> str:
        self.picture = jpeg()
        body, kind = multipart("file", "smoke.jpg", "image/jpeg", self.picture)
        path = "/api/v1/images"
        began = time.monotonic()
        answer = self.client.request(
            "POST", path, wanted=201, hint=self.IMAGE, token=self.token, body=body, content_type=kind
        )
        seconds = time.monotonic() - began
        self.image = answer.json()
        wanted = {
            "sha256": hashlib.sha256(self.picture).hexdigest(),
            "size": len(self.picture),
            "content_type": "image/jpeg",
        }
        for name, value in wanted.items():
            if self.image.get(name) != value:
                found = self.image.get(name)
                raise StepError(f"POST {self.target.url}{path}: {name} is {found!r}, wanted {value!r}", self.IMAGE)
        return f"{len(self.picture)} bytes, {len(self.picture) / seconds / 1e6:.0f} MB/s"

    def download(self) -> str:
        url = str(self.image.get("url", ""))
        # The URL that the service hands out has to work as it stands.
        if url.startswith("/"):
            url = self.target.url + url
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != self.target.url:
            raise StepError(f"the image's URL is {url!r}, wanted one below {self.target.url}", self.IMAGE)
        answer = self.client.request("GET", parts.path, wanted=200, hint=self.IMAGE, token=self.token)
        found, wanted = hashlib.sha256(answer.body).hexdigest(), hashlib.sha256(self.picture).hexdigest()
        if found != wanted:
            what = f"{len(answer.body)} bytes with SHA-256 {found}, wanted {len(self.picture)} with {wanted}"
            raise StepError(f"GET {url} gave {what}", self.IMAGE)
        return found

    def stats(self) -> str:
        path = "/api/v1/images/stats"
        answer = self.client.request("GET", path, wanted=200, hint=self.IMAGE, token=self.token).json()
        images, size = answer.get("images", 0), answer.get("bytes", 0)
        if images < 1 or size < len(self.picture):
            raise StepError(f"GET {self.target.url}{path} counts {images} images of {size} bytes", self.IMAGE)
        return f"{images} images, {size} bytes"

    def clean_up(self) -> str:
        """What this run made, and what interrupted runs left behind."""
        image = f"/api/v1/images/{self.image['filename']}"
        self.client.request("DELETE", image, wanted=204, hint=self.IMAGE, token=self.token)
        self.client.request("GET", image, wanted=404, hint=self.IMAGE, token=self.token)
        self.client.request("DELETE", f"/api/v1/posts/{self.post['id']}", wanted=204, hint=self.API, token=self.token)
        self.image, self.post = {}, {}
        leftovers = self._remove_leftovers("/api/v1/images", "filename") + self._remove_leftovers("/api/v1/posts", "id")
        return f"and {leftovers} of interrupted runs" if leftovers else ""

    def _remove_leftovers(self, path: str, key: str) -> int:
        listing = path if path.endswith("images") else f"{path}/my"
        items = self.client.request("GET", listing, wanted=200, hint=self.API, token=self.token).json().get("items", [])
        oldest = datetime.now(UTC) - LEFTOVER_AGE
        old = [item for item in items if datetime.fromisoformat(item["created_at"].replace("Z", "+00:00")) < oldest]
        for item in old:
            self.client.request("DELETE", f"{path}/{item[key]}", wanted=204, hint=self.API, token=self.token)
        return len(old)

    def give_up(self) -> None:
        """After a failure: remove what can still be removed, silently."""
        with contextlib.suppress(StepError):
            if self.image.get("filename"):
                path = f"/api/v1/images/{self.image['filename']}"
                self.client.request("DELETE", path, wanted=204, hint="", token=self.token)
        with contextlib.suppress(StepError):
            if self.post.get("id"):
                path = f"/api/v1/posts/{self.post['id']}"
                self.client.request("DELETE", path, wanted=204, hint="", token=self.token)


def check(target: Target) -> Result:
    """All steps once, up to the first that fails."""
    run, result = Check(target), Result()
    began = time.monotonic()
    try:
        for name, step in run.steps():
            start = time.monotonic()
            try:
                detail = step()
            except StepError as failure:
                result.failed = Step(name, time.monotonic() - start, failure.problem)
                result.hint = failure.hint
                run.give_up()
                break
            result.steps.append(Step(name, time.monotonic() - start, detail))
    finally:
        run.client.close()
    result.registered = run.registered
    result.seconds = time.monotonic() - began
    return result


def check_until(target: Target, deadline: float) -> Result:
    """Again and again until one run is green from its first step to its last, or `deadline` seconds are over."""
    began = time.monotonic()
    attempts, registered, pause = 0, False, RETRY_SECONDS
    while True:
        attempts += 1
        result = check(target)
        registered = registered or result.registered
        result.attempts, result.registered, result.seconds = attempts, registered, time.monotonic() - began
        if result.green or result.seconds + pause >= deadline:
            return result
        time.sleep(pause)
        # Each attempt logs in, and logins from one address are limited.
        pause = min(pause * 1.5, RETRY_SECONDS_AT_MOST)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True, help="for example https://slipway.test")
    parser.add_argument("--ca", required=True, type=Path, help="the platform's CA certificate")
    parser.add_argument("--address", action="append", default=[], help="address to use instead of DNS; may be repeated")
    parser.add_argument("--username", default="smoke")
    parser.add_argument("--deadline", type=float, default=0, help="seconds to try again; 0 tries once")
    options = parser.parse_args(arguments)
    password = os.environ.get("SMOKE_PASSWORD", "")
    if not password:
        parser.error("SMOKE_PASSWORD is not set; it is the secret smoke_password of the environment")
    target = Target(options.url.rstrip("/"), options.ca, tuple(options.address), options.username, password)
    result = check_until(target, options.deadline)
    print("\n".join(result.table()))
    print(f"{'green' if result.green else 'not green'} after {result.seconds:.1f} s, attempt {result.attempts}")
    return 0 if result.green else 1


if __name__ == "__main__":
    sys.exit(main())
