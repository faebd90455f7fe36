"""The program of a service: its words, its exit codes, and its end."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from slipway_kit import main
from slipway_kit.application import Runtime, build_app
from slipway_kit.main import run, serve
from slipway_kit.migrations import MigrationError
from slipway_kit.settings import DatabaseSettings, ServiceSettings
from slipway_kit.tasks import background
from slipway_testing.processes import free_port
from slipway_testing.settings import settings_of


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Settings in the environment, and a log that stays as it is."""
    monkeypatch.setenv("PUBLIC_URL", "https://slipway.test")
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setattr(main, "configure_logging", lambda *_: None)
    return monkeypatch


def no_app(_: Any) -> FastAPI:
    raise AssertionError("this should not be served")


def test_a_service_without_a_database_cannot_migrate(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("slipway_probe", ServiceSettings, no_app, ["migrate"]) == 2
    assert capsys.readouterr().err == "slipway_probe: found arguments 'migrate', wanted serve (default)\n"


async def succeed(_: ServiceSettings) -> int:
    return 0


@pytest.mark.parametrize("words", [["reload"], ["sweep", "now"], ["serve", "--port", "1"], [""]])
def test_words_that_are_none(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run("slipway_probe", DatabaseSettings, no_app, words, commands={"sweep": succeed}) == 2
    found = " ".join(words)
    wanted = "serve (default) or migrate or sweep"
    assert capsys.readouterr().err == f"slipway_probe: found arguments {found!r}, wanted {wanted}\n"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_command_gets_the_settings_and_says_how_it_ended(code: int) -> None:
    async def command(settings: ServiceSettings) -> int:
        assert settings.public_base == "https://slipway.test"
        await asyncio.sleep(0)
        return code

    assert run("slipway_probe", ServiceSettings, no_app, ["sweep"], commands={"sweep": command}) == code


def test_a_command_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(_: ServiceSettings) -> int:
        raise RuntimeError("of all things")

    async def refused(_: ServiceSettings) -> int:
        raise MigrationError("the schema is newer")

    commands: dict[str, Callable[[ServiceSettings], Awaitable[int]]] = {"broken": broken, "refused": refused}
    assert run("slipway_probe", ServiceSettings, no_app, ["broken"], commands=commands) == 1
    assert run("slipway_probe", ServiceSettings, no_app, ["refused"], commands=commands) == 1
    assert capsys.readouterr().err == "slipway_probe: refused: the schema is newer\n"


def test_settings_come_first(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.setenv("PORT", "0")
    environment.setenv("TRUSTED_PROXIES", "10.0.0.0/8,pods")
    environment.setenv("TRACE_SAMPLE_RATIO", "2")
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    assert run("slipway_probe", ServiceSettings, no_app, ["sweep"], commands={"sweep": succeed}) == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "slipway_probe: OTEL_EXPORTER_OTLP_ENDPOINT: found 'collector:4318', wanted the base URL of an OTLP/HTTP "
        "collector; without it nothing is traced, for example http://collector.monitoring.svc:4318",
        "slipway_probe: PORT: found '0', wanted a port between 1 and 65535, for example 3001",
        "slipway_probe: TRACE_SAMPLE_RATIO: found '2', wanted the share of traces (0 to 1) that are recorded, "
        "for example 0.1",
        "slipway_probe: TRUSTED_PROXIES: found '10.0.0.0/8,pods', wanted networks separated by commas, and 'pods' is "
        "none (no bits may be set behind the prefix), for example 10.42.0.0/16,10.43.0.0/16",
    ]


class Recorder:
    """A service that notes in which order it lives and dies."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def note(self, event: str) -> Callable[[], Awaitable[None]]:
        async def callback() -> None:
            self.events.append(event)

        return callback

    async def task(self) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            self.events.append("task")

    def app(self, settings: ServiceSettings) -> FastAPI:
        router = APIRouter()

        @router.get("/slow")
        async def slow() -> str:
            self.events.append("asked")
            # Longer than the server goes on accepting.
            await asyncio.sleep(2)
            self.events.append("answered")
            return "x"

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
            async with AsyncExitStack() as stack:
                for name in ("database", "redis", "client"):
                    stack.push_async_callback(self.note(name))
                await stack.enter_async_context(background("task", self.task))
                yield {}

        runtime = Runtime.new("probe", settings)
        return build_app(runtime, title="t", description="d", routers=[router], lifespan=lifespan)


@pytest.fixture
def port() -> int:
    return free_port()


def terminate() -> None:
    """Once per server: without one the signal would end the tests."""
    os.kill(os.getpid(), signal.SIGTERM)


def while_it_serves(port: int, what: Callable[[httpx2.Client], None]) -> threading.Thread:
    """Runs `what` in a thread as soon as the server answers; `what` has to terminate it."""

    def act() -> None:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            while True:
                try:
                    client.get("/health/live")
                    break
                except httpx2.TransportError:
                    time.sleep(0.02)
            what(client)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def seen() -> Iterator[list[Any]]:
    yield []


def test_the_end_comes_in_order(port: int, seen: list[Any]) -> None:
    recorder = Recorder()
    settings = settings_of(ServiceSettings, host="127.0.0.1", port=port, shutdown_delay_seconds=1.5)

    def ask(client: httpx2.Client) -> None:
        slow = threading.Thread(target=lambda: seen.append(httpx2.get(f"http://127.0.0.1:{port}/slow").status_code))
        slow.start()
        while "asked" not in recorder.events:
            time.sleep(0.01)
        terminate()
        while client.get("/health/ready").status_code == 200:
            time.sleep(0.01)
        # Not ready, but still serving whoever comes.
        seen.append(client.get("/health/ready").status_code)
        seen.append(client.get("/health/live").status_code)
        slow.join(10)

    thread = while_it_serves(port, ask)
    assert serve(recorder.app(settings)) == 0
    thread.join(20)
    assert seen == [503, 200, 200]
    assert recorder.events == ["asked", "answered", "task", "client", "redis", "database"]


def test_a_port_that_is_taken_is_a_failure(port: int) -> None:
    settings = settings_of(ServiceSettings, host="127.0.0.1", port=port, shutdown_delay_seconds=0)
    codes = []

    def second(_: httpx2.Client) -> None:
        # In a thread uvicorn leaves the signals alone.
        try:
            codes.append(serve(Recorder().app(settings)))
        finally:
            terminate()

    thread = while_it_serves(port, second)
    assert serve(Recorder().app(settings)) == 0
    thread.join(20)
    assert codes == [1]


def test_serving_is_the_default(environment: pytest.MonkeyPatch, port: int) -> None:
    environment.setenv("HOST", "127.0.0.1")
    environment.setenv("PORT", str(port))
    environment.setenv("SHUTDOWN_DELAY_SECONDS", "0")
    for words in ([], ["serve"]):
        thread = while_it_serves(port, lambda client: terminate())
        assert run("slipway_probe", ServiceSettings, Recorder().app, words) == 0
        thread.join(20)
