"""demo: what it promises to those who try alerts and rollouts on it, and the bounds of what they can ask for."""

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from slipway_demo.app import create_app
from slipway_demo.settings import Settings
from slipway_kit.settings import SettingsError
from slipway_testing.checks import assert_problem
from slipway_testing.processes import free_port
from slipway_testing.servers import live

PUBLIC_URL = "https://demo.slipway.test"


@contextmanager
def running(chance: Callable[[], float] | None = None, **changes: Any) -> Iterator[httpx2.Client]:
    """Without a `chance` of one's own: chance with a seed, so that what passed once passes again."""
    chance = chance or random.Random(4).random  # noqa: S311 - nobody is to be kept from guessing
    settings = Settings(**{"public_url": PUBLIC_URL, "service_version": "1a2b", **changes})
    with live(create_app(settings, chance)) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture
def demo() -> Iterator[httpx2.Client]:
    with running() as client:
        yield client


def metric(client: httpx2.Client, name: str, **labels: str) -> float:
    samples = itertools.chain.from_iterable(
        family.samples for family in text_string_to_metric_families(client.get("/metrics").text)
    )
    (value,) = (sample.value for sample in samples if sample.name == name and sample.labels == labels)
    return value


def test_the_index_leads_only_to_what_is_there(demo: httpx2.Client) -> None:
    index = demo.get("/").json()
    assert (index["service"], index["version"]) == ("demo", "1a2b")
    paths = [link["path"] for link in index["links"]]
    assert {path.partition("?")[0] for path in paths} == {
        "/health",
        "/ready",
        "/metrics",
        "/api/data",
        "/api/status",
        "/api/flaky",
        "/api/slow",
    }
    for path in paths:
        # Its example may fail: that is what it is for.
        assert demo.get(path).status_code in ({200, 500} if "flaky" in path else {200}), path


def test_data_is_the_same_each_time_and_bounded(demo: httpx2.Client) -> None:
    first = demo.get("/api/data").json()
    assert first["count"] == len(first["items"]) == 20
    assert first["items"][0] == {"id": 1, "name": "item-1", "value": 0.841471}
    assert demo.get("/api/data", params={"count": 20}).json() == first
    assert demo.get("/api/data", params={"count": 100}).json()["items"][:20] == first["items"]
    assert metric(demo, "demo_items_served_total") == 140
    for count in ("0", "101", "-1", "many", "1.5", ""):
        assert_problem(demo.get("/api/data", params={"count": count}), 422, "invalid-request")


def test_flaky_fails_always_or_never_at_its_ends() -> None:
    # The smallest and the largest number that chance can give.
    for number in (0.0, 1 - 2**-53):
        with running(itertools.repeat(number).__next__) as demo:
            assert demo.get("/api/flaky?failure_rate=0").json() == {"failed": False, "failure_rate": 0}
            problem = assert_problem(demo.get("/api/flaky?failure_rate=1"), 500, "flaky-failure")
            assert problem["on_purpose"] is True


def test_flaky_fails_in_the_share_that_was_asked_for(demo: httpx2.Client) -> None:
    statuses = [demo.get("/api/flaky?failure_rate=0.25").status_code for _ in range(400)]
    assert set(statuses) == {200, 500}
    failed = statuses.count(500)
    # Four standard deviations of a binomial distribution around 100.
    assert abs(failed - 100) < 35
    assert metric(demo, "demo_flaky_total", outcome="failure") == failed
    assert metric(demo, "demo_flaky_total", outcome="success") == 400 - failed
    assert demo.get("/api/status").json()["failures_caused"] == failed
    # Alerts are tried on these: the failures have to look like everybody's failures.
    assert metric(demo, "http_requests_total", method="GET", route="/api/flaky", status="500") == failed


def test_outcomes_are_there_before_the_first_failure(demo: httpx2.Client) -> None:
    assert metric(demo, "demo_flaky_total", outcome="failure") == 0


@pytest.mark.parametrize("rate", ["-0.01", "1.01", "nan", "inf", "-inf", "often", ""])
def test_flaky_out_of_range(demo: httpx2.Client, rate: str) -> None:
    assert_problem(demo.get("/api/flaky", params={"failure_rate": rate}), 422, "invalid-request")


def test_slow_takes_its_time(demo: httpx2.Client) -> None:
    started = time.perf_counter()
    answer = demo.get("/api/slow?delay_ms=200").json()
    assert time.perf_counter() - started >= 0.2
    assert answer["delay_ms"] == 200
    # The loop's clock has a resolution of its own: a timer may end a little early by another clock.
    assert answer["waited_ms"] >= 199
    assert demo.get("/api/slow?delay_ms=0").status_code == 200
    assert metric(demo, "demo_delay_seconds_count") == 2
    assert metric(demo, "demo_delay_seconds_sum") == 0.2


@pytest.mark.parametrize("delay", ["-1", "10001", "1e9", "0.5", "long", ""])
def test_slow_out_of_range(demo: httpx2.Client, delay: str) -> None:
    started = time.perf_counter()
    assert_problem(demo.get("/api/slow", params={"delay_ms": delay}), 422, "invalid-request")
    assert time.perf_counter() - started < 5


async def test_slow_requests_are_bounded_and_hold_up_nobody_else() -> None:
    with running(slow_max=3) as sync_client:
        async with httpx2.AsyncClient(base_url=sync_client.base_url, timeout=20) as demo:
            waiting = [asyncio.create_task(demo.get("/api/slow?delay_ms=1500")) for _ in range(3)]
            deadline = time.monotonic() + 1
            while (await demo.get("/api/status")).json()["slow_in_progress"] < 3:
                assert time.monotonic() < deadline
            refused = await demo.get("/api/slow?delay_ms=0")
            assert_problem(refused, 503, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            assert (await demo.get("/api/data")).status_code == 200
            assert not any(task.done() for task in waiting)
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
            assert (await demo.get("/api/slow?delay_ms=0")).status_code == 200
            assert (await demo.get("/api/status")).json()["slow_in_progress"] == 0


def test_health_needs_nothing_else(demo: httpx2.Client) -> None:
    health = demo.get("/health").json()
    assert (health["status"], health["service"], health["checks"]) == ("ok", "demo", {})
    for path in ("/ready", "/health/ready", "/health/live"):
        assert demo.get(path).status_code == 200


def test_what_is_not_there(demo: httpx2.Client) -> None:
    assert_problem(demo.get("/api/nothing"), 404)
    assert_problem(demo.post("/api/flaky"), 405)


def test_openapi_tells_about_the_failures(demo: httpx2.Client) -> None:
    paths = demo.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/", "/api/data", "/api/status", "/api/flaky", "/api/slow"}
    for path, methods in paths.items():
        (operation,) = methods.values()
        assert operation.get("x-fails-on-purpose", False) is (path == "/api/flaky")
        for status in {"422", "500"} | ({"503"} if path == "/api/slow" else set()):
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def test_settings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_URL", PUBLIC_URL)
    assert Settings.load().port == 8080
    for value in ("0", "5001", "all"):
        monkeypatch.setenv("SLOW_MAX", value)
        with pytest.raises(SettingsError, match=r"SLOW_MAX: found .*, wanted slow requests at a time, 1 to 5000"):
            Settings.load()


def environment(port: int) -> dict[str, str]:
    """As the platform passes settings; no secret is among them."""
    return {
        "PUBLIC_URL": PUBLIC_URL,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "SHUTDOWN_DELAY_SECONDS": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_as_a_process_without_any_database(tmp_path: Path) -> None:
    """Serves, finishes at SIGTERM what it has begun, ends with 0; each line of its log is JSON."""
    port = free_port()
    command = [sys.executable, "-m", "slipway_demo"]
    with subprocess.Popen(
        command, env=environment(port), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                wait_until_live(client, process)
                assert client.get("/ready").status_code == 200
                assert_problem(client.get("/api/flaky?failure_rate=1"), 500, "flaky-failure")
                with httpx2.Client(base_url=client.base_url, timeout=20) as other:
                    in_flight = asyncio.run(_interrupted(other, process))
            out, error = process.communicate(timeout=20)
        finally:
            process.kill()
    assert in_flight == 200
    assert (process.returncode, error) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    (failure,) = [line for line in lines if line.get("route") == "/api/flaky"]
    # A failure on purpose leaves an access line, and no traceback that somebody would look into.
    assert (failure["status"], failure["service"]) == (500, "demo")
    assert "unhandled error" not in [line["event"] for line in lines]


async def _interrupted(client: httpx2.Client, process: "subprocess.Popen[str]") -> int:
    request = asyncio.create_task(asyncio.to_thread(client.get, "/api/slow?delay_ms=1000"))
    await asyncio.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    return (await request).status_code


def wait_until_live(client: httpx2.Client, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if client.get("/health/live").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_migrate_is_not_among_its_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slipway_demo", "migrate"],
        env=environment(free_port()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "slipway_demo: found arguments 'migrate', wanted serve (default)\n"
