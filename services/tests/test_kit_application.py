"""The frame around every service: ids, metrics, errors, limits, health, and the end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from slipway_kit.application import Runtime, build_app
from slipway_kit.health import Health
from slipway_kit.lifecycle import Lifecycle
from slipway_kit.problems import Problem, problems
from slipway_kit.settings import ServiceSettings
from slipway_testing.checks import assert_problem
from slipway_testing.servers import LiveServer, live
from slipway_testing.settings import settings_of
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Body(BaseModel):
    number: int


def routers() -> list[APIRouter]:
    inner = APIRouter(prefix="/inner")
    outer = APIRouter(prefix="/outer/{group}")

    @inner.get("/items/{item}")
    async def item(group: str, item: str) -> dict[str, str]:
        return {"group": group, "item": item}

    @inner.delete("/items/{item}", status_code=204)
    async def remove(group: str, item: str) -> None:
        """Nothing to do."""

    outer.include_router(inner)
    plain = APIRouter()

    @plain.get("/fails")
    async def fails() -> None:
        raise RuntimeError("the password is hunter2")

    @plain.get("/teapot")
    async def teapot() -> None:
        raise Problem(418, "teapot", "Short and stout.", headers={"X-Spout": "here"}, extra={"handle": "there"})

    @plain.get("/starlette")
    async def starlette() -> None:
        raise HTTPException(409, "As Starlette says it.")

    @plain.get("/half")
    async def half() -> Response:
        return HalfAnAnswer()

    @plain.post("/echo", responses=problems(400, 413))
    async def echo(body: Body) -> Body:
        return body

    @plain.post("/large")
    async def large(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    @plain.get("/slow")
    async def slow() -> dict[str, str]:
        await asyncio.sleep(0.6)
        return {"status": "finished"}

    return [outer, plain]


class HalfAnAnswer(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")


@dataclass
class Dependency:
    """Something that can go away."""

    up: bool = True
    asked: int = 0

    async def probe(self) -> None:
        self.asked += 1
        if not self.up:
            raise ConnectionError("no route to 10.0.0.1")


def new_app(**options: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {}

    runtime = Runtime.new("probe", settings_of(ServiceSettings))
    return build_app(runtime, title="t", description="d", routers=routers(), lifespan=lifespan, **options)


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with live(new_app(body_limit=1000, body_limit_exceptions=[("/large", None)])) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url) as client:
        yield client


def test_a_request_id_is_kept_or_made(client: httpx2.Client) -> None:
    assert client.get("/health/live", headers={"X-Request-Id": "abc-12345"}).headers["x-request-id"] == "abc-12345"
    made = [client.get("/health/live").headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2
    assert all(len(id_) == 32 for id_ in made)


@pytest.mark.parametrize("offered", ["short", "x" * 129, "with space 1", '{"json": 1}', "ünicode-id", "a\tb-12345"])
def test_a_request_id_that_could_do_harm_is_replaced(client: httpx2.Client, offered: str) -> None:
    answer = client.get("/health/live", headers={b"X-Request-Id": offered.encode()})
    assert len(answer.headers["x-request-id"]) == 32


def test_routes_are_whole_templates(client: httpx2.Client) -> None:
    assert client.get("/outer/a/inner/items/b").json() == {"group": "a", "item": "b"}
    client.get("/outer/a/inner/nothing/1")
    client.get("/wp-login.php")
    client.request("PROPFIND", "/outer/a/inner/items/c")
    text = client.get("/metrics").text
    assert 'http_requests_total{method="GET",route="/outer/{group}/inner/items/{item}",status="200"} 1.0' in text
    assert 'http_request_duration_seconds_count{method="GET",route="/outer/{group}/inner/items/{item}"} 1.0' in text
    assert 'http_requests_total{method="GET",route="unmatched",status="404"} 2.0' in text
    assert 'method="OTHER"' in text
    assert "wp-login" not in text
    assert "PROPFIND" not in text


def test_problems_of_all_origins(client: httpx2.Client) -> None:
    teapot = client.get("/teapot")
    problem = assert_problem(teapot, 418, "teapot")
    assert problem["detail"] == "Short and stout."
    assert (problem["handle"], teapot.headers["x-spout"]) == ("there", "here")
    assert assert_problem(client.get("/starlette"), 409)["detail"] == "As Starlette says it."
    assert "detail" not in assert_problem(client.get("/nothing"), 404)
    wrong = client.post("/teapot")
    assert_problem(wrong, 405)
    assert wrong.headers["allow"] == "GET"
    wrong = client.put("/outer/1/inner/items/2")
    assert_problem(wrong, 405)
    assert wrong.headers["allow"] == "GET, DELETE"
    invalid = assert_problem(client.post("/echo", json={"number": "x"}), 422, "invalid-request")
    assert invalid["errors"] == [
        {"detail": "Input should be a valid integer, unable to parse string as an integer", "pointer": "#/number"}
    ]
    json_headers = {"Content-Type": "application/json"}
    assert_problem(client.post("/echo", content=b"{", headers=json_headers), 400, "malformed-json")
    assert_problem(client.post("/echo", content=b"\xff", headers=json_headers), 400)


@pytest.mark.parametrize("host", ["[", "a b", "x:y:z", "[::1", "evil.example/?", ""])
def test_a_host_that_cannot_be_parsed_changes_nothing(server: LiveServer, host: str) -> None:
    """By hand: a client library would not send it."""
    for path, status in (("/nothing", 404), ("/fails", 500), ("/teapot/", 404)):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
        assert b"application/problem+json" in head
        assert json.loads(body)["instance"] == path


def test_one_slash_too_many_is_not_found(client: httpx2.Client) -> None:
    answer = client.get("/teapot/", headers={"Host": "evil.example"})
    assert_problem(answer, 404)
    assert "location" not in answer.headers


def test_the_last_resort_says_nothing_of_the_inside(client: httpx2.Client) -> None:
    answer = client.get("/fails", headers={"X-Request-Id": "to-be-found"})
    problem = assert_problem(answer, 500)
    assert problem == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "instance": "/fails",
        "request_id": "to-be-found",
    }
    assert 'route="/fails",status="500"} 1.0' in client.get("/metrics").text


def test_an_error_in_the_middle_breaks_the_connection(client: httpx2.Client) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        client.get("/half")
    assert 'route="/half",status="499"} 1.0' in client.get("/metrics").text


def test_body_limits(client: httpx2.Client) -> None:
    def chunks(count: int) -> Iterator[bytes]:
        yield from (b" " * 100 for _ in range(count))

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 1001, chunks(11)):
        assert_problem(client.post("/echo", content=content, headers=headers), 413, "body-too-large")
    for content in (b" " * 1000, chunks(10)):
        assert_problem(client.post("/echo", content=content, headers=headers), 400, "malformed-json")
    assert client.post("/large", content=b" " * 5000).json() == {"size": 5000}


async def test_a_content_length_that_is_none_is_refused() -> None:
    """The server does not let it through; another server might."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing should be read")

    headers = [(b"content-length", b"-1")]
    scope = {"type": "http", "method": "POST", "path": "/echo", "raw_path": b"/echo", "query_string": b""}
    await new_app()(scope | {"headers": headers, "server": ("x", 80), "scheme": "http", "root_path": ""}, receive, send)
    assert sent[0]["status"] == 413


def test_no_interactive_documentation(client: httpx2.Client) -> None:
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    assert client.get("/openapi.json").status_code == 200


def test_health(server: LiveServer, client: httpx2.Client) -> None:
    assert client.get("/health").json() == {
        "status": "ok",
        "service": "probe",
        "version": "dev",
        "draining": False,
        "checks": {},
    }
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ok", "checks": {}}


async def test_health_tells_down_from_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway_kit.health.CACHE_SECONDS", 0)
    health = Health("probe", "dev", Lifecycle())
    main, side = Dependency(), Dependency()
    health.add("main", main.probe, critical=True)
    health.add("side", side.probe)
    assert (await health.report())[0] == "ok"
    side.up = False
    assert (await health.report())[0] == "degraded"
    assert (await health.report(critical_only=True))[0] == "ok"
    main.up = False
    status, checks = await health.report()
    assert status == "down"
    # No addresses: this answer may be seen by many.
    assert checks["main"] == {"status": "down", "error": "ConnectionError"}


async def test_a_dependency_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway_kit.health.CHECK_TIMEOUT", 0.05)
    health = Health("probe", "dev", Lifecycle())

    async def hang() -> None:
        await asyncio.sleep(30)

    health.add("main", hang, critical=True)
    assert await health.report() == ("down", {"main": {"status": "down", "error": "TimeoutError"}})


async def test_many_probes_ask_a_dependency_once() -> None:
    health = Health("probe", "dev", Lifecycle())
    dependency = Dependency()
    health.add("main", dependency.probe)
    await asyncio.gather(*(health.report() for _ in range(20)))
    assert dependency.asked == 1


def test_draining(server: LiveServer, client: httpx2.Client) -> None:
    server.server.drain(30)
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert ready.headers["retry-after"] == "5"
    # Alive, and still serving whoever was sent here before the word got around.
    live_answer = client.get("/health/live")
    assert live_answer.status_code == 200
    assert live_answer.headers["connection"] == "close"
    assert client.get("/health").json()["draining"] is True


def test_openapi_knows_the_problem(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["schemas"]["Problem"]["required"] == ["type", "title", "status"]
    responses = document["paths"]["/echo"]["post"]["responses"]
    assert set(responses) == {"200", "400", "413", "422", "500"}
    assert set(responses["422"]["content"]) == {"application/problem+json"}
