"""Traces arrive whole and say nothing that they should not; and a collector that is away is nobody's problem."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import asyncpg
import httpx2
import pytest
import structlog
import urllib3
from fastapi import APIRouter, FastAPI
from opentelemetry import context, trace
from opentelemetry.sdk.trace.sampling import Decision
from slipway_kit import otlp
from slipway_kit.application import Runtime, build_app
from slipway_kit.database import Database
from slipway_kit.http_client import new_session
from slipway_kit.redis import Redis
from slipway_kit.settings import DatabaseSettings, RedisSettings
from slipway_testing.collector import CLIENT, SERVER, Collector, running_collector
from slipway_testing.postgres import Postgres
from slipway_testing.processes import free_port
from slipway_testing.redis import RedisServer
from slipway_testing.servers import LiveServer, live, live_asgi
from slipway_testing.settings import settings_of
from slipway_testing.upstreams import echo

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Settings(DatabaseSettings, RedisSettings):
    pass


@pytest.fixture(scope="module")
def values(postgres: Postgres, redis_server: RedisServer) -> dict[str, Any]:
    return postgres.create_database("traced", "traced", "traced-password") | redis_server.settings("api")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(otlp, "SEND_EVERY_SECONDS", 0.05)
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def upstream() -> Iterator[LiveServer]:
    with live_asgi(echo) as server:
        yield server


def new_app(settings: Settings, upstream_url: str) -> FastAPI:
    runtime = Runtime.new("traced", settings)
    database = Database(settings, runtime.registry, "traced")
    redis = Redis(settings, runtime.registry, "traced")
    router = APIRouter(prefix="/things")
    runtime.health.add("database", database.ping, critical=True)
    session: list[aiohttp.ClientSession] = []

    @router.get("/{thing}")
    async def everything(thing: str) -> dict[str, Any]:
        await database.fetchrow("things", "SELECT $1::text AS secret", thing)
        await redis.attempt("things", lambda client: client.set("api:things", thing), None)
        async with session[0].get(f"{upstream_url}/asked?secret={thing}") as answer:
            asked = await answer.json(content_type=None)
        await asyncio.to_thread(stored, thing)
        return {"context": structlog.contextvars.get_contextvars(), "headers": dict(asked["headers"])}

    def stored(thing: str) -> None:
        with urllib3.PoolManager() as pool:
            pool.request("GET", f"{upstream_url}/stored?secret={thing}", retries=False)

    @router.get("/{thing}/fails")
    async def fails(thing: str) -> None:
        raise RuntimeError(f"this says {thing}")

    @router.get("/{thing}/query-fails")
    async def query_fails(thing: str) -> None:
        await database.fetchrow("things", "SELECT $1::text::int", thing)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with new_session(total=5) as opened:
            session.append(opened)
            await database.open()
            yield {}
            await redis.close()
            await database.close()

    return build_app(runtime, title="t", description="d", routers=[router], lifespan=lifespan)


@contextmanager
def traced(values: dict[str, Any], endpoint: str, upstream: LiveServer, **changes: Any) -> Iterator[httpx2.Client]:
    settings = settings_of(Settings, **(values | {"otel_exporter_otlp_endpoint": endpoint} | changes))
    with live(new_app(settings, upstream.url)) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        yield client


def test_one_request_is_one_trace(values: dict[str, Any], upstream: LiveServer, collector: Collector) -> None:
    with traced(values, collector.url, upstream, service_version="1a2b3c") as client:
        answer = client.get("/things/hunter2?secret=hunter2").json()
        spans = collector.wait_for(5)
    server = collector.one(SERVER, "GET /things/{thing}")
    assert server.parent_id == ""
    assert server.attributes == {
        "http.request.method": "GET",
        "http.route": "/things/{thing}",
        "http.response.status_code": 200,
        "url.path": "/things/hunter2",
    }
    assert not server.error
    # Of the connections to the database and Redis too; the stable conventions' names.
    clients = [span for span in spans if span.kind == CLIENT]
    assert {span.trace_id for span in spans} == {server.trace_id} == {answer["context"]["trace_id"]}
    assert {span.parent_id for span in clients} == {server.span_id}
    query = collector.one(CLIENT, "SELECT")
    assert query.attributes["db.query.text"] == "SELECT $1::text AS secret"
    assert collector.one(CLIENT, "SET").attributes["db.query.text"] == "SET ? ?"
    urls = {span.attributes["url.full"] for span in clients if "url.full" in span.attributes}
    assert urls == {f"{upstream.url}/asked", f"{upstream.url}/stored"}
    assert {span.service for span in spans} == {"traced"}
    resource = collector.resources[0]
    assert (resource["service.namespace"], resource["service.version"]) == ("slipway", "1a2b3c")
    # The path is the only place where a user's words may show; the rest has neither values nor passwords.
    shown = b"".join(collector.bodies).replace(b"/things/hunter2", b"")
    assert b"hunter2" not in shown
    assert b"traced-password" not in shown


def test_a_trace_goes_on_through_a_service(values: dict[str, Any], upstream: LiveServer, collector: Collector) -> None:
    with traced(values, collector.url, upstream) as client:
        headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "baggage": "secret=hunter2"}
        answer = client.get("/things/x", headers=headers).json()
        collector.wait_for(5)
    server = collector.one(SERVER, "GET /things/{thing}")
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    (call,) = [span for span in collector.spans if span.attributes.get("url.full") == f"{upstream.url}/asked"]
    assert answer["headers"]["traceparent"] == f"00-{TRACE}-{call.span_id}-01"
    assert answer["headers"]["tracestate"] == "vendor=1"
    assert "baggage" not in answer["headers"]
    assert answer["context"]["trace_id"] == TRACE


@pytest.mark.parametrize("wrong", ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "00-ä-b-01"])
def test_a_traceparent_that_is_none(
    values: dict[str, Any], upstream: LiveServer, collector: Collector, wrong: str
) -> None:
    with traced(values, collector.url, upstream) as client:
        answer = client.get("/things/x", headers={b"traceparent": wrong.encode()}).json()
        collector.wait_for(5)
    assert collector.one(SERVER, "GET /things/{thing}").parent_id == ""
    assert len(answer["context"]["trace_id"]) == 32


def test_failures_are_marked_and_not_quoted(values: dict[str, Any], upstream: LiveServer, collector: Collector) -> None:
    with traced(values, collector.url, upstream) as client:
        assert client.get("/things/hunter2/fails").status_code == 500
        assert client.get("/things/hunter2/query-fails").status_code == 500
        assert client.get("/nothing/hunter2").status_code == 404
        collector.wait_for(4)
    failed = collector.one(SERVER, "GET /things/{thing}/fails")
    assert (failed.error, failed.message, failed.attributes["error.type"]) == (True, "", "500")
    query = collector.one(CLIENT, "SELECT")
    assert (query.error, query.message, query.events) == (True, "", 0)
    assert query.attributes["error.type"] == "InvalidTextRepresentationError"
    # 404 is no failure of the service; and a path that no route has is not a name.
    assert not collector.one(SERVER, "GET unmatched").error
    shown = b"".join(collector.bodies)
    for path in (b"/things/hunter2/", b"/nothing/hunter2"):
        shown = shown.replace(path, b"")
    assert b"hunter2" not in shown


def test_probes_are_not_traced_nor_what_they_ask(
    values: dict[str, Any], upstream: LiveServer, collector: Collector
) -> None:
    with traced(values, collector.url, upstream) as client:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            assert client.get(path, headers={"traceparent": TRACEPARENT}).status_code == 200
    assert collector.spans == []


@pytest.mark.parametrize("headers", [{}, {"traceparent": TRACEPARENT}], ids=["no parent", "a parent that insists"])
def test_what_is_not_sampled_is_passed_on_all_the_same(
    values: dict[str, Any], upstream: LiveServer, collector: Collector, headers: dict[str, str]
) -> None:
    with traced(values, collector.url, upstream, trace_sample_ratio=0) as client:
        answer = client.get("/things/x", headers=headers).json()
    version, trace_id, _, flags = answer["headers"]["traceparent"].split("-")
    assert (version, trace_id) == ("00", answer["context"]["trace_id"])
    # The lowest bit says that it is sampled; the next one only that the id is random.
    assert int(flags, 16) & 1 == 0
    assert collector.spans == []


def test_a_parent_that_is_not_sampled_is_respected(
    values: dict[str, Any], upstream: LiveServer, collector: Collector
) -> None:
    with traced(values, collector.url, upstream) as client:
        client.get("/things/x", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert collector.spans == []


def test_services_choose_the_same_traces() -> None:
    """By the trace id, so that half of the traces is not a quarter of those that pass two services."""
    samplers = [otlp.RequestSampler(0.5) for _ in range(2)]
    remote = trace.SpanContext(int(TRACE, 16), int(PARENT, 16), True, trace.TraceFlags(1))
    parent = trace.set_span_in_context(trace.NonRecordingSpan(remote), context.Context())
    chosen = []
    for number in range(1, 400):
        trace_id = number * 0x1234567890ABCDEF1234567890
        root = samplers[0].should_sample(context.Context(), trace_id, "x", trace.SpanKind.SERVER)
        child = samplers[1].should_sample(parent, trace_id, "x", trace.SpanKind.SERVER)
        assert root.decision == child.decision
        chosen.append(root.decision is Decision.RECORD_AND_SAMPLE)
    assert 120 < sum(chosen) < 280
    alone = samplers[0].should_sample(context.Context(), 1, "SELECT", trace.SpanKind.CLIENT)
    assert alone.decision is Decision.DROP


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def percentile_95(client: httpx2.Client, count: int) -> float:
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        assert client.get("/things/x").status_code == 200
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[int(count * 0.95)]


def sample(client: httpx2.Client, name: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0


@pytest.mark.parametrize("how", ["nobody listens", "nobody answers", "refuses"])
def test_a_lost_collector_costs_requests_nothing(
    values: dict[str, Any],
    upstream: LiveServer,
    collector: Collector,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """300 requests are 1500 spans: far more than the queue takes here."""
    monkeypatch.setattr(otlp, "QUEUE", 100)
    monkeypatch.setattr(otlp, "BATCH", 50)
    monkeypatch.setattr(otlp, "SEND_TIMEOUT", 1.0)
    monkeypatch.setattr(otlp, "CLOSE_TIMEOUT", 1.0)
    collector.status = 503
    with traced(values, collector.url, upstream, otel_exporter_otlp_endpoint=None) as client:
        without = percentile_95(client, 100)
    with silent() as hanging:
        url = {"nobody listens": f"http://127.0.0.1:{free_port()}", "nobody answers": hanging}.get(how, collector.url)
        with traced(values, url, upstream) as client:
            # Room for the spans themselves and for a busy machine, but not for waiting a second.
            assert percentile_95(client, 300) < without + 0.2
            assert sample(client, 'trace_spans_total{result="recorded"}') == 1500
            deadline = time.monotonic() + 10
            while not (lost := sample(client, 'trace_spans_total{result="lost"}')) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert lost > 0
            assert sample(client, 'trace_spans_total{result="delivered"}') == 0
            started = time.monotonic()
        assert time.monotonic() - started < 5


def test_a_collector_may_come_back(values: dict[str, Any], upstream: LiveServer, collector: Collector) -> None:
    collector.status = 400
    with traced(values, collector.url, upstream) as client:
        client.get("/things/x")
        deadline = time.monotonic() + 10
        while sample(client, 'trace_spans_total{result="lost"}') < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        collector.status = 200
        client.get("/things/x")
        assert len(collector.wait_for(5)) == 5
        # Each of them is in one place.
        counts = {result: sample(client, f'trace_spans_total{{result="{result}"}}') for result in ("recorded", "lost")}
    assert counts == {"recorded": 10, "lost": 5}


def test_nothing_is_left_behind() -> None:
    """Instrumentations are global: after a traced application others of this process are not traced any more."""
    assert not hasattr(asyncpg.Connection.fetch, "__wrapped__")
    assert not hasattr(urllib3.connectionpool.HTTPConnectionPool.urlopen, "__wrapped__")


PROGRAM = """
import sys
from contextlib import asynccontextmanager
from slipway_kit.application import Runtime, build_app
from slipway_kit.main import run
from slipway_kit.settings import ServiceSettings
from fastapi import APIRouter

router = APIRouter()

@router.get("/thing")
async def thing() -> str:
    return "x"

@asynccontextmanager
async def lifespan(_):
    yield {}

def create_app(settings):
    return build_app(Runtime.new("probe", settings), title="t", description="d", routers=[router], lifespan=lifespan)

code = run("slipway_probe", ServiceSettings, create_app, [])
print("opentelemetry.sdk" in sys.modules, "requests" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def run_program(**variables: str) -> tuple[list[dict[str, Any]], str, int]:
    """Two requests to a process: its log, what it says at the end, and its exit code."""
    port = free_port()
    environment = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PUBLIC_URL": "https://slipway.test",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "SHUTDOWN_DELAY_SECONDS": "0",
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx2.get(f"{url}/health/live")
                break
            except httpx2.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        httpx2.get(f"{url}/thing", headers={"traceparent": TRACEPARENT})
        httpx2.get(f"{url}/thing")
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=20)
    finally:
        process.kill()
    return [json.loads(line) for line in out.splitlines()], error, process.returncode


def test_a_process_sends_its_last_spans_and_logs_their_ids(collector: Collector) -> None:
    lines, error, code = run_program(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert (code, error) == (0, "True True\n")
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["trace_id"] for line in requests] == [span.trace_id for span in collector.spans]
    assert requests[0]["trace_id"] == TRACE
    assert len({line["trace_id"] for line in requests}) == 2
    assert {span.name for span in collector.spans} == {"GET /thing"}


def test_without_a_collector_nothing_is_loaded() -> None:
    lines, error, code = run_program(OTEL_EXPORTER_OTLP_ENDPOINT="")
    assert (code, error) == (0, "False False\n")
    requests = [line for line in lines if line["event"] == "request"]
    # Somebody else's trace is still named.
    assert [line.get("trace_id") for line in requests] == [TRACE, None]


def test_a_lost_collector_is_said_once(collector: Collector) -> None:
    lines, _, code = run_program(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert code == 0
    said = [line for line in lines if line.get("delivered") is False]
    assert len(said) == 1
    assert said[0]["level"] == "warning"
    assert not [line for line in lines if str(line.get("logger", "")).startswith("opentelemetry")]
