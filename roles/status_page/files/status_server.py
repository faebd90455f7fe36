"""Serves the status page: gathers in the background, answers from what it has, and asks for a password.

    status_server.py --name NAME --prometheus URL --alertmanager URL --password-file FILE [--interval SECONDS]

What was gathered last is shown with its age, so a request asks nobody and a cluster in trouble slows none. The page is
at port 8080, for the user `status`; the file holds the SHA-256 of the password and is read for each request. Port 8081
has /health/live, /health/ready and /metrics without a password; only what is in the cluster reaches it.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import status_html
from platform_status import Ask, SilentError, Status, gather, text

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
USER = "status"
# Wrong passwords that one address may send in a minute, and addresses that are remembered.
TRIES, TRIES_SECONDS, ADDRESSES = 10, 60.0, 1000
# Requests at a time, and seconds that one may take to arrive.
AT_ONCE, REQUEST_SECONDS = 32, 10
ASK_SECONDS = 5
ANSWER_BYTES = 32 * 2**20
# Without having tried for so long it has got stuck.
STUCK_SECONDS = 180


def asking(name: str, url: str, context: ssl.SSLContext | None = None, token: Path | None = None) -> Ask:
    """Return a function that asks one server for JSON."""

    def ask(path: str) -> Any:
        try:
            # The token is read every time: the kubelet renews it.
            headers = {"Authorization": f"Bearer {token.read_text(encoding='utf-8').strip()}"} if token else {}
            request = urllib.request.Request(url + path, headers=headers)  # noqa: S310 - given by the operator
            with urllib.request.urlopen(request, timeout=ASK_SECONDS, context=context) as answer:  # noqa: S310
                body = answer.read(ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            error.close()
            raise SilentError(f"{name} refuses {path.partition('?')[0]}: {error.code} {text(error.reason)}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = text(getattr(error, "reason", error)) or type(error).__name__
            raise SilentError(f"{name} does not answer: {reason}") from error
        try:
            if len(body) > ANSWER_BYTES:
                raise ValueError("more than fits")
            return json.loads(body)
        except ValueError as error:
            raise SilentError(f"{name} answers with something that is not understood: {text(error)}") from error

    return ask


def kubernetes() -> Ask:
    """Return a function that asks the API server by the pod's own account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    address = f"[{host}]" if ":" in host else host
    context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    return asking("the API server", f"https://{address}:{port}", context, SERVICE_ACCOUNT / "token")


class Gatherer:
    """What was gathered last."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self.status: Status | None = None
        self.tried = time.monotonic()

    def once(self) -> None:
        """Look once; what cannot be learned at all leaves what was known, which grows old."""
        try:
            self.status = self._look()
        except Exception as error:  # whatever it is: the page goes on, and its age says so
            print(f"could not gather: {type(error).__name__}: {text(error)}", flush=True)
        self.tried = time.monotonic()

    def forever(self, interval: float) -> None:
        """Look again and again."""
        while True:
            self.once()
            time.sleep(interval)

    @property
    def stuck(self) -> bool:
        return time.monotonic() - self.tried > STUCK_SECONDS


@dataclass
class Door:
    """Lets in who knows the password, and tells an address that guesses to wait."""

    password_file: Path
    clock: Callable[[], float] = time.monotonic
    refused: int = 0
    _tries: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def opens(self, authorization: str, address: str) -> HTTPStatus:
        """Return OK, UNAUTHORIZED, or TOO_MANY_REQUESTS for an address whose tries are used up, right or wrong."""
        with self._lock:
            now = self.clock()
            tries = [when for when in self._tries.pop(address, []) if now - when < TRIES_SECONDS]
            if len(tries) >= TRIES:
                answer = HTTPStatus.TOO_MANY_REQUESTS
            elif self._right(authorization):
                answer = HTTPStatus.OK
            else:
                answer = HTTPStatus.UNAUTHORIZED
                # A browser asks without a password first: that is no guess.
                tries += [now] if authorization else []
            self.refused += answer is not HTTPStatus.OK
            if tries:
                self._tries[address] = tries
            while len(self._tries) > ADDRESSES:
                self._tries.popitem(last=False)
            return answer

    def _right(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
            wanted = self.password_file.read_text(encoding="ascii").strip().lower()
        except (binascii.Error, ValueError, OSError):
            return False
        user, _, password = given.partition(b":")
        # Both are compared, whichever is wrong, and in the same time.
        name = hmac.compare_digest(user, USER.encode())
        word = hmac.compare_digest(hashlib.sha256(password).hexdigest(), wanted)
        return name and word and len(password) > 0


class Server(ThreadingHTTPServer):
    """A server with a bound on what it does at a time."""

    daemon_threads = True
    address_family = socket.AF_INET
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(timeout=1):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless it is a client that went away."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"could not answer: {type(error).__name__}: {text(error)}", flush=True)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD, one request for each connection, and says nothing of what it is made with."""

    timeout = REQUEST_SECONDS

    def answer(self) -> tuple[HTTPStatus, Mapping[str, str], str]:
        """Return status, headers and body of the answer."""
        raise NotImplementedError

    def do_GET(self) -> None:
        self._send(*self.answer())

    def do_HEAD(self) -> None:
        self._send(*self.answer())

    def version_string(self) -> str:
        return ""

    def send_response(self, code: int, message: str | None = None) -> None:
        self.send_response_only(code, message)
        self.send_header("Date", self.date_time_string())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request that is served, in plain words."""
        with contextlib.suppress(ValueError):
            self._send(*plain(HTTPStatus(code)))

    def log_message(self, *_: Any) -> None:
        """Requests are counted by /metrics."""

    def _send(self, status: HTTPStatus, headers: Mapping[str, str], body: str) -> None:
        content = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def plain(status: HTTPStatus, body: str = "", **headers: str) -> tuple[HTTPStatus, Mapping[str, str], str]:
    """Return an answer in plain text that no browser takes for anything else."""
    shared = status_html.HEADERS | {"Content-Type": "text/plain; charset=utf-8"}
    return (
        status,
        shared | {name.replace("_", "-"): value for name, value in headers.items()},
        body or f"{status.phrase}\n",
    )


def pages(name: str, gatherer: Gatherer, door: Door) -> type[Handler]:
    """Return what answers with the page."""

    class Pages(Handler):
        def answer(self) -> tuple[HTTPStatus, Mapping[str, str], str]:
            found = door.opens(self.headers.get("Authorization", ""), self._address())
            if found is HTTPStatus.UNAUTHORIZED:
                return plain(found, WWW_Authenticate='Basic realm="status", charset="UTF-8"')
            if found is not HTTPStatus.OK:
                return plain(found, Retry_After=str(int(TRIES_SECONDS)))
            path, _, query = self.path.partition("?")
            if path != "/":
                return plain(HTTPStatus.NOT_FOUND)
            return HTTPStatus.OK, status_html.HEADERS, status_html.page(name, gatherer.status, time.time(), query)

        def _address(self) -> str:
            """Return the client's address: the last one is what the ingress has seen itself."""
            return self.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or self.client_address[0]

    return Pages


def insides(gatherer: Gatherer, door: Door) -> type[Handler]:
    """Return what answers kubelets and Prometheus."""

    class Insides(Handler):
        def answer(self) -> tuple[HTTPStatus, Mapping[str, str], str]:
            match self.path.partition("?")[0]:
                case "/health/live":
                    return plain(HTTPStatus.SERVICE_UNAVAILABLE if gatherer.stuck else HTTPStatus.OK)
                case "/health/ready":
                    return plain(HTTPStatus.OK if gatherer.status else HTTPStatus.SERVICE_UNAVAILABLE)
                case "/metrics":
                    return plain(HTTPStatus.OK, metrics(gatherer, door))
            return plain(HTTPStatus.NOT_FOUND)

    return Insides


def metrics(gatherer: Gatherer, door: Door) -> str:
    """Return what Prometheus reads."""
    taken = gatherer.status.taken if gatherer.status else 0
    problems = len(gatherer.status.problems()) if gatherer.status else 0
    return f"""\
# HELP status_page_gathered_timestamp_seconds When the page was renewed last.
# TYPE status_page_gathered_timestamp_seconds gauge
status_page_gathered_timestamp_seconds {taken:.3f}
# HELP status_page_problems Reasons for which something could not be learned.
# TYPE status_page_problems gauge
status_page_problems {problems}
# HELP status_page_refused_total Requests without the right password.
# TYPE status_page_refused_total counter
status_page_refused_total {door.refused}
"""


def main() -> None:
    """Gather and serve for ever."""
    parser = argparse.ArgumentParser(description="Serves the status page.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--alertmanager", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--interval", type=float, default=15)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    api = kubernetes()
    prometheus = asking("Prometheus", given.prometheus)
    alertmanager = asking("Alertmanager", given.alertmanager)
    gatherer = Gatherer(lambda: gather(api, prometheus, alertmanager, time.time()))
    door = Door(given.password_file)
    threading.Thread(target=gatherer.forever, args=(given.interval,), daemon=True).start()
    inside = Server(("", 8081), insides(gatherer, door))
    threading.Thread(target=inside.serve_forever, daemon=True).start()
    Server(("", 8080), pages(given.name, gatherer, door)).serve_forever()


if __name__ == "__main__":
    main()
