"""The circuit breaker: by itself with a clock of our own, and in front of an upstream that dies and comes back."""

import time
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from slipway_api.breaker import Breaker, BreakerMetrics, BreakerState
from slipway_kit.problems import Problem
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User
from slipway_testing.servers import live_asgi
from slipway_testing.upstreams import plain, scripted, slow

pytestmark = pytest.mark.slow

JWKS = "/api/v1/auth/.well-known/jwks.json"
FAILURES, OPEN_SECONDS = 3, 10.0


class Bench:
    """A breaker and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        metrics = BreakerMetrics(self.registry)
        self.breaker = Breaker("image", FAILURES, OPEN_SECONDS, metrics, clock=lambda: self.now)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.breaker.admit())

    def refused(self) -> Problem:
        with pytest.raises(Problem) as caught:
            self.breaker.admit()
        return caught.value

    def shown(self) -> str:
        """The state by the metrics: exactly one is 1."""
        values = {
            state: self.registry.get_sample_value("upstream_breaker_state", {"upstream": "image", "state": state})
            for state in BreakerState
        }
        assert sorted(value or 0 for value in values.values()) == [0, 0, 1]
        return next(state for state, value in values.items() if value)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_opens_after_failures_in_a_row(bench: Bench) -> None:
    assert bench.shown() == "closed"
    bench.fail(FAILURES - 1)
    bench.breaker.succeeded(bench.breaker.admit())
    bench.fail(FAILURES - 1)
    assert bench.shown() == "closed"
    bench.fail()
    assert bench.shown() == "open"
    problem = bench.refused()
    assert (problem.status_code, problem.code) == (503, "upstream-unavailable")
    assert problem.headers == {"Retry-After": "10"}
    bench.now += 9.5
    assert bench.refused().headers == {"Retry-After": "1"}
    opened = bench.registry.get_sample_value("upstream_breaker_opened_total", {"upstream": "image"})
    assert opened == 1


def test_one_trial_decides(bench: Bench) -> None:
    bench.fail(FAILURES)
    bench.now += OPEN_SECONDS
    trial = bench.breaker.admit()
    assert bench.shown() == "half-open"
    bench.refused()
    bench.breaker.succeeded(trial)
    assert bench.shown() == "closed"
    # And failures are counted anew.
    bench.fail(FAILURES - 1)
    assert bench.shown() == "closed"


def test_a_failed_trial_opens_it_again(bench: Bench) -> None:
    bench.fail(FAILURES)
    bench.now += OPEN_SECONDS
    bench.fail()
    assert bench.shown() == "open"
    bench.now += OPEN_SECONDS - 0.1
    bench.refused()
    bench.now += 0.1
    bench.breaker.admit()


def test_a_trial_that_tells_nothing_makes_room_for_the_next(bench: Bench) -> None:
    bench.fail(FAILURES)
    bench.now += OPEN_SECONDS
    bench.breaker.abandoned(bench.breaker.admit())
    assert not bench.breaker.refuses
    bench.breaker.succeeded(bench.breaker.admit())
    assert bench.shown() == "closed"


def test_a_trial_that_takes_long_does_not_keep_others_out(bench: Bench) -> None:
    bench.fail(FAILURES)
    bench.now += OPEN_SECONDS
    slow_trial = bench.breaker.admit()
    bench.now += OPEN_SECONDS
    second = bench.breaker.admit()
    # What the first one finds is old by now.
    bench.breaker.failed(slow_trial)
    bench.breaker.abandoned(slow_trial)
    assert bench.shown() == "half-open"
    bench.refused()
    bench.breaker.succeeded(second)
    assert bench.shown() == "closed"


def test_calls_from_before_say_nothing_about_now(bench: Bench) -> None:
    old = [bench.breaker.admit() for _ in range(FAILURES + 2)]
    bench.fail(FAILURES)
    bench.breaker.succeeded(old[0])
    assert bench.shown() == "open"
    bench.now += OPEN_SECONDS
    trial = bench.breaker.admit()
    bench.breaker.failed(old[1])
    assert bench.shown() == "half-open"
    bench.breaker.succeeded(trial)
    for number in old[2:]:
        bench.breaker.failed(number)
    assert bench.shown() == "closed"


STEPS = st.lists(st.sampled_from(["admit", "succeed", "fail", "abandon", "wait", "wait long"]), max_size=60)


@given(STEPS)
def test_whatever_happens_it_recovers(steps: list[str]) -> None:
    """No order of events may leave it shut: after a pause one call gets through, and its success closes it."""
    bench, calls = Bench(), []
    for step in steps:
        if step == "admit":
            with suppress(Problem):
                calls.append(bench.breaker.admit())
        elif step.startswith("wait"):
            bench.now += OPEN_SECONDS * (1 if step == "wait long" else 0.3)
        elif calls:
            number = calls.pop(0)
            {
                "succeed": bench.breaker.succeeded,
                "fail": bench.breaker.failed,
                "abandon": bench.breaker.abandoned,
            }[step](number)
        assert bench.shown() == bench.breaker.state
        # While it is shut at most one call gets through at a time.
        if bench.breaker.state is BreakerState.HALF_OPEN and bench.breaker.refuses:
            bench.refused()
    bench.now += OPEN_SECONDS
    bench.breaker.succeeded(bench.breaker.admit())
    assert bench.breaker.state is BreakerState.CLOSED


@pytest.fixture
def dying(platform: Platform) -> Iterator[httpx2.Client]:
    """A gateway whose auth gives no answer three times, is well for one, and then again not."""
    with (
        scripted(b"", b"", b"", plain(200, b"good"), b"") as upstream,
        platform.api(auth_url=upstream.url, breaker_failures=3, breaker_open_seconds=3) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        yield client


def state(client: httpx2.Client) -> str:
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("upstream_breaker_state{") and line.endswith('"auth"} 1.0')]
    return line.split('state="')[1].split('"')[0]


def login(client: httpx2.Client) -> httpx2.Response:
    """Not repeated: one call each."""
    return client.post("/api/v1/auth/login", json={})


def test_an_upstream_that_dies_and_comes_back(dying: httpx2.Client) -> None:
    assert state(dying) == "closed"
    for _ in range(3):
        assert_problem(login(dying), 502, "upstream-failed")
    assert state(dying) == "open"
    for _ in range(20):
        answer = login(dying)
        assert_problem(answer, 503, "upstream-unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 3
    # Without having been asked.
    assert 'upstream_requests_total{outcome="refused",upstream="auth"} 20.0' in dying.get("/metrics").text
    # Others do not suffer, and it is told apart.
    assert dying.get("/api/v1/posts").status_code == 200
    health = dying.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["auth"]["status"] == "down"
    assert health.json()["checks"]["image"]["status"] == "ok"
    time.sleep(3)
    # The fourth call that the upstream sees.
    assert login(dying).status_code == 200
    assert state(dying) == "closed"


def test_answers_do_not_open_it_whatever_they_say(platform: Platform) -> None:
    """Or somebody who finds out how to make auth fail could shut everybody out."""
    with (
        scripted(plain(500), plain(503), plain(502), plain(504), plain(400)) as upstream,
        platform.api(auth_url=upstream.url, breaker_failures=1) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        assert [login(client).status_code for _ in range(5)] == [500, 503, 502, 504, 400]
        assert state(client) == "closed"


def test_clients_do_not_open_it(platform: Platform) -> None:
    """Neither by sending too slowly nor by sending too much nor by leaving."""

    def slowly() -> Iterator[bytes]:
        yield b"{"
        time.sleep(0.5)
        yield b"}"

    def much() -> Iterator[bytes]:
        yield from (b"x" * 10_000 for _ in range(20))

    def leaving() -> Iterator[bytes]:
        yield b"x"
        time.sleep(0.1)
        raise RuntimeError("gone")

    with (
        live_asgi(slow) as upstream,
        platform.api(auth_url=upstream.url, breaker_failures=1, relay_head_timeout=0.3) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        assert_problem(client.post("/api/v1/auth/login", content=slowly()), 408, "request-timeout")
        assert_problem(client.post("/api/v1/auth/login", content=much()), 413, "body-too-large")
        with pytest.raises(RuntimeError, match="gone"):
            client.post("/api/v1/auth/login", content=leaving())
        time.sleep(0.1)
        assert state(client) == "closed"
        assert 'upstream_requests_total{outcome="client",upstream="auth"} 3.0' in client.get("/metrics").text
        # This is what does.
        assert_problem(login(client), 504, "upstream-timeout")
        assert state(client) == "open"


def test_each_upstream_has_its_own(platform: Platform, user: User) -> None:
    with (
        scripted(b"") as upstream,
        platform.api(auth_url=upstream.url, breaker_failures=1, breaker_open_seconds=60) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        login(client)
        assert state(client) == "open"
        assert client.get("/api/v1/images", headers=user.headers).status_code == 200
