"""The status page: what it says in HTML, and its server, which is asked over real connections."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import status_html
import status_server
from platform_status import Alert, Backups, Budget, Certificate, Node, Section, SilentError, Status, Workload

NOW = 1_800_000_000.0
EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"""
PASSWORD = "correct horse"
ALERT = Alert("ShopDown", "critical", NOW - 60, "It is closed", "service=shop", "https://git/x.md#shopdown", "")


def status(**parts: Any) -> Status:
    """Return a platform that is well but for some parts."""
    return replace(
        Status(
            taken=NOW,
            nodes=Section((Node("agent-1", "v1.36.3", ""),)),
            workloads=Section(
                (
                    Workload("Deployment", "shops", "shop", "", True),
                    Workload("StatefulSet", "infrastructure", "postgres", "", False),
                )
            ),
            budgets=Section((Budget("shops", "shop", 0.999, 0.5),)),
            remembered=86400,
            backups=Section((Backups(NOW - 3600, NOW - 7200),)),
            certificates=Section((Certificate("ingress-nginx", "public", NOW + 60 * 86400, True),)),
            alerts=Section(),
            arriving=True,
            told=True,
        ),
        **parts,
    )


class Reader(HTMLParser):
    """What a browser and a screen reader find in a page."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(found: Status | None = None, now: float = NOW, name: str = "slipway.test") -> Reader:
    return Reader(status_html.page(name, found, now))


def test_it_says_all_that_is_known() -> None:
    words = read(status(alerts=Section((ALERT,))), NOW + 8).words
    for said in (
        "Status of slipway.test",
        "as of 2027-01-15 08:00:00 UTC , 8 s old when you asked",
        "Not well 1 critical alert is open",
        "ShopDown It is closed service=shop ✗ critical 1 min since 2027-01-15 07:59:00 UTC",
        "agent-1 ✓ ready v1.36.3",
        "shop shops ✓ ready",
        "postgres infrastructure ✓ ready",
        "What may still fail of 30 days; Prometheus looks back 1 d",
        "shop 99.9 % ✓ 50.0 % left",
        "Last one shown to restore ✓ 2 h ago 2027-01-15 06:00:00 UTC",
        "Last one made ✓ 1 h ago",
        "public ingress-nginx ✓ 60 days left 2027-03-16 08:00:00 UTC",
    ):
        assert said in words, words


def test_all_is_well_only_when_it_is() -> None:
    assert "✓ All is well" in read(status()).words
    assert "No alert is open." in read(status()).words
    changes: list[dict[str, Any]] = [
        {"nodes": Section((Node("agent-1", "v1", "not ready: NodeStatusUnknown"),))},
        {"alerts": Section((), "Alertmanager does not answer: timed out")},
        {"arriving": False},
        {"budgets": Section((Budget("shops", "shop", 0.999, -1.0),))},
        {"backups": Section((Backups(NOW, 0.0),))},
        {"certificates": Section((Certificate("a", "b", NOW + 86400, True),))},
    ]
    for change in changes:
        assert "All is well" not in read(status(**change)).words, change
    assert "Nobody is told of alerts" in read(status(told=False)).words


def test_what_is_not_known_is_said_with_the_reason() -> None:
    silent: Section[Any] = Section(problem="Prometheus does not answer: timed out")
    words = read(status(budgets=silent, backups=silent, certificates=silent)).words
    assert words.count("✗ Not known: Prometheus does not answer: timed out") == 3
    assert "agent-1 ✓ ready" in words
    assert "Nobody makes backups" not in words


def test_it_says_how_old_it_is() -> None:
    assert "All is well" in read(status(), NOW + 90).words
    old = read(status(), NOW + 600).words
    assert "10 min old when you asked" in old
    assert "Not well what is shown is 10 min old: the page cannot renew it" in old
    assert "Not known yet" in read(None).words


def test_what_others_have_written_is_text() -> None:
    """Each of these comes from somebody who is no author of the page."""
    evil = status(
        nodes=Section((Node(EVIL, EVIL, EVIL),), EVIL),
        workloads=Section((Workload(EVIL, EVIL, EVIL, EVIL, True), Workload(EVIL, EVIL, EVIL, "", False)), EVIL),
        budgets=Section((Budget(EVIL, EVIL, 0.9, -1.0),), EVIL),
        backups=Section((Backups(0, 0),), EVIL),
        certificates=Section((Certificate(EVIL, EVIL, NOW, False),), EVIL),
        alerts=Section((Alert(EVIL, EVIL, NOW, EVIL, EVIL, "https://" + EVIL, EVIL),), EVIL),
    )
    page = read(evil, name=EVIL)
    plain = read(status(alerts=Section((ALERT,))))
    assert {tag for tag, _ in page.tags} - {"ul", "li"} <= {tag for tag, _ in plain.tags}
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []
    assert [link["href"] for link in page.all("a")] == ["/", "/?every=30", "https://" + EVIL]
    assert page.words.count("<script>alert(1)</script>") >= 12


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "JAVASCRIPT:alert(1)", " https://x", "data:text/html,x", "docs/x.md"]
)
def test_only_addresses_of_the_web_are_links(address: str) -> None:
    page = read(status(alerts=Section((replace(ALERT, runbook=address),))))
    assert [link["href"] for link in page.all("a")] == ["/", "/?every=30"]
    assert address.strip() in page.words


def test_it_loads_and_runs_nothing() -> None:
    page = read(status(alerts=Section((ALERT,))))
    assert {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "form", "object", "svg"} == set()
    assert [attributes for _, attributes in page.tags if "style" in attributes] == []
    text = status_html.page("x", status(), NOW)
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert status_html.POLICY.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")


def test_it_renews_itself_for_who_wants_that_and_for_nobody_else(port: int) -> None:
    """Who reads slowly, or with a screen reader, would lose the place."""

    def refreshed(path: str) -> list[str | None]:
        metas = Reader(ask(port, path, Authorization=basic(PASSWORD))[2]).all("meta")
        return [one["content"] for one in metas if one.get("http-equiv") == "refresh"]

    assert (refreshed("/"), refreshed("/?every=30"), refreshed("/?every=1;url=//x")) == ([], ["30"], [])
    assert [one["href"] for one in read(status()).all("a")] == ["/", "/?every=30"]


def test_it_can_be_read_without_eyes_and_without_colours() -> None:
    page = read(status(alerts=Section((ALERT,))))
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("header", "main", "h1")] == [1, 1, 1]
    headings = {one["id"] for one in page.all("h2")}
    named = {one["aria-labelledby"] for one in page.all("section") if "aria-labelledby" in one}
    assert headings == named
    assert len(headings) == 7
    assert len(page.all("table")) == len(page.all("caption")) == 7
    assert {one["scope"] for one in page.all("th")} == {"col", "row"}
    # Each colour comes with a sign and a word.
    coloured = [one["class"] for one in page.all("span") if "class" in one]
    assert len(coloured) == len([one for one in page.all("span") if one.get("aria-hidden") == "true"]) - 1 >= 7


# --- who is let in


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def basic(password: str, user: str = "status") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password.sha256"
    path.write_text(hashlib.sha256(PASSWORD.encode()).hexdigest() + "\n", encoding="ascii")
    return path


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        "Bearer " + base64.b64encode(f"status:{PASSWORD}".encode()).decode(),
        basic("wrong"),
        basic(""),
        basic(PASSWORD, "admin"),
        basic(PASSWORD + " "),
        basic(hashlib.sha256(PASSWORD.encode()).hexdigest()),
    ],
)
def test_only_the_password_opens_the_door(password_file: Path, authorization: str) -> None:
    assert status_server.Door(password_file).opens(authorization, "a") is HTTPStatus.UNAUTHORIZED
    assert status_server.Door(password_file).opens(basic(PASSWORD), "a") is HTTPStatus.OK


def test_without_a_password_in_the_file_it_opens_to_nobody(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("", encoding="ascii")
    for path in (empty, tmp_path / "missing"):
        for password in ("", PASSWORD):
            assert status_server.Door(path).opens(basic(password), "a") is HTTPStatus.UNAUTHORIZED


def test_a_new_password_works_at_once(password_file: Path) -> None:
    door = status_server.Door(password_file)
    password_file.write_text(hashlib.sha256(b"another").hexdigest(), encoding="ascii")
    assert [door.opens(basic(one), "a") for one in ("another", PASSWORD)] == [HTTPStatus.OK, HTTPStatus.UNAUTHORIZED]


def test_who_guesses_has_to_wait_and_others_do_not(password_file: Path) -> None:
    clock = Clock()
    door = status_server.Door(password_file, clock)
    for _ in range(status_server.TRIES):
        assert door.opens(basic("wrong"), "guesser") is HTTPStatus.UNAUTHORIZED
    # Also with the right one: whether a guess is right is not told either.
    assert door.opens(basic(PASSWORD), "guesser") is HTTPStatus.TOO_MANY_REQUESTS
    assert door.opens(basic(PASSWORD), "other") is HTTPStatus.OK
    clock.now += status_server.TRIES_SECONDS
    assert door.opens(basic(PASSWORD), "guesser") is HTTPStatus.OK


def test_a_browser_that_does_not_know_yet_that_it_is_asked_has_guessed_nothing(password_file: Path) -> None:
    door = status_server.Door(password_file)
    for _ in range(3 * status_server.TRIES):
        assert door.opens("", "a") is HTTPStatus.UNAUTHORIZED
    assert door.opens(basic(PASSWORD), "a") is HTTPStatus.OK


def test_it_remembers_no_more_addresses_than_it_can_hold(password_file: Path) -> None:
    door = status_server.Door(password_file)
    for number in range(status_server.ADDRESSES + 100):
        door.opens(basic("wrong"), str(number))
    assert len(door._tries) == status_server.ADDRESSES


# --- the server


@contextlib.contextmanager
def serving(handler: type[status_server.Handler]) -> Iterator[int]:
    with status_server.Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


def ask(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


@pytest.fixture
def gatherer() -> status_server.Gatherer:
    found = status_server.Gatherer(status)
    found.once()
    return found


@pytest.fixture
def port(gatherer: status_server.Gatherer, password_file: Path) -> Iterator[int]:
    with serving(status_server.pages("slipway.test", gatherer, status_server.Door(password_file))) as found:
        yield found


def test_it_asks_for_a_password_and_then_shows_the_page(port: int) -> None:
    code, headers, body = ask(port)
    assert (code, headers["WWW-Authenticate"]) == (401, 'Basic realm="status", charset="UTF-8"')
    assert "slipway" not in body
    code, headers, body = ask(port, Authorization=basic(PASSWORD))
    assert code == 200
    assert "Status of slipway.test" in body
    assert headers["Content-Security-Policy"] == status_html.POLICY
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert "Server" not in headers
    assert ask(port, "/?x=1", "HEAD", Authorization=basic(PASSWORD))[::2] == (200, "")


def test_nothing_else_is_there(port: int) -> None:
    for path in (
        "/metrics",
        "/health/live",
        "/health/ready",
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/index.html",
    ):
        assert ask(port, path)[0] == 401, path
        assert ask(port, path, Authorization=basic(PASSWORD))[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "TRACE", "OPTIONS"):
        assert ask(port, "/", method, Authorization=basic(PASSWORD))[0] == 501, method


def test_an_address_is_what_the_ingress_has_seen_last(port: int) -> None:
    for number in range(status_server.TRIES):
        # What a client writes itself stands before it.
        assert ask(port, Authorization=basic("no"), X_Forwarded_For=f"10.0.0.{number}, 192.0.2.7")[0] == 401
    code, headers, _ = ask(port, Authorization=basic(PASSWORD), X_Forwarded_For="192.0.2.7")
    assert (code, headers["Retry-After"]) == (429, "60")
    assert ask(port, Authorization=basic(PASSWORD), X_Forwarded_For="192.0.2.8")[0] == 200


def test_what_is_no_request_is_refused_in_plain_words(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"<script> / HTTP/1.1\r\n\r\n")
        answer = connection.recv(65536).decode()
    assert answer.split("\r\n")[0].split()[1] == "501"
    assert "Content-Type: text/plain" in answer
    assert "script" not in answer


def test_slow_clients_do_not_keep_others_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server.Handler, "timeout", 0.5)
    with contextlib.ExitStack() as stack:
        for _ in range(status_server.AT_ONCE):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            slow.sendall(b"GET / HTTP/1.1\r\n")
        assert ask(port, Authorization=basic(PASSWORD))[0] == 200


def test_inside_it_says_how_it_is(gatherer: status_server.Gatherer, password_file: Path) -> None:
    door = status_server.Door(password_file)
    door.opens(basic("wrong"), "a")
    empty = status_server.Gatherer(status)
    with serving(status_server.insides(gatherer, door)) as port, serving(status_server.insides(empty, door)) as young:
        assert [ask(port, path)[0] for path in ("/health/live", "/health/ready", "/metrics", "/")] == [
            200,
            200,
            200,
            404,
        ]
        assert [ask(young, path)[0] for path in ("/health/live", "/health/ready")] == [200, 503]
        lines = ask(port, "/metrics")[2].splitlines()
        assert f"status_page_gathered_timestamp_seconds {NOW:.3f}" in lines
        assert "status_page_refused_total 1" in lines
        gatherer.tried -= status_server.STUCK_SECONDS + 1
        assert [ask(port, path)[0] for path in ("/health/live", "/health/ready")] == [503, 200]


def test_a_failure_of_its_own_leaves_what_was_known(capsys: pytest.CaptureFixture[str]) -> None:
    looks: list[Callable[[], Status]] = [status, lambda: 1 / 0]  # type: ignore[list-item,return-value]
    gatherer = status_server.Gatherer(lambda: looks.pop(0)())
    gatherer.once()
    gatherer.once()
    assert gatherer.status == status()
    assert capsys.readouterr().out == "could not gather: ZeroDivisionError: division by zero\n"


# --- whom it asks


class Upstream(status_server.Handler):
    """A server that says what its path wants."""

    def answer(self) -> tuple[HTTPStatus, dict[str, str], str]:
        if self.path == "/token":
            return HTTPStatus.OK, {}, f'"{self.headers["Authorization"]}"'
        if self.path == "/broken":
            return HTTPStatus.OK, {}, "<html>"
        if self.path == "/down?x":
            return HTTPStatus.SERVICE_UNAVAILABLE, {}, ""
        return HTTPStatus.OK, {}, '{"items": []}'


def test_it_asks_with_its_token_and_says_why_there_is_no_answer(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with serving(Upstream) as port:
        asked = status_server.asking("the API server", f"http://127.0.0.1:{port}", token=token)
        for word in ("first", "second"):
            token.write_text(f"{word}\n", encoding="utf-8")
            assert asked("/token") == f"Bearer {word}"
        assert asked("/x") == {"items": []}
        for path, reason in (
            ("/down?x", r"^the API server refuses /down: 503 Service Unavailable$"),
            ("/broken", r"^the API server answers with something that is not understood: Expecting value"),
        ):
            with pytest.raises(SilentError, match=reason):
                asked(path)
        nobody = status_server.asking("Prometheus", "http://127.0.0.1:1")
        with pytest.raises(SilentError, match=r"^Prometheus does not answer: \[Errno 111\] Connection refused$"):
            nobody("/x")


def test_who_takes_too_long_or_tells_too_much_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "ASK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        asked = status_server.asking("Prometheus", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(SilentError, match=r"^Prometheus does not answer: timed out$"):
            asked("/x")
    monkeypatch.setattr(status_server, "ANSWER_BYTES", 5)
    with serving(Upstream) as port, pytest.raises(SilentError, match="more than fits"):
        status_server.asking("Prometheus", f"http://127.0.0.1:{port}")("/x")
