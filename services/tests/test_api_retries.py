"""How often an upstream is asked: counted by the upstream."""

from typing import Any

import httpx2
import pytest
from slipway_api.retries import AT_MOST, RetryBudget
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User
from slipway_testing.processes import free_port
from slipway_testing.servers import live_asgi
from slipway_testing.upstreams import Scripted, plain, scripted, slow

pytestmark = pytest.mark.slow

JWKS = "/api/v1/auth/.well-known/jwks.json"
IMAGE = f"/api/v1/images/{'0' * 32}.jpg"
GOOD = plain(200, b"good")


def ask(platform: Platform, upstream: Scripted, method: str, path: str, **options: Any) -> httpx2.Response:
    with platform.api(auth_url=upstream.url, image_url=upstream.url) as server:
        answer = httpx2.request(method, server.url + path, **options)
        answer.extensions["metrics"] = httpx2.get(f"{server.url}/metrics").text
        return answer


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("first", [b"", plain(503), plain(502)], ids=["hangs up", "503", "502"])
def test_what_is_safe_is_tried_once_more(platform: Platform, method: str, first: bytes) -> None:
    with scripted(first, plain(200)) as upstream:
        answer = ask(platform, upstream, method, JWKS)
    assert answer.status_code == 200
    assert len(upstream.heads) == 2
    # The same request, and known to be the same.
    assert upstream.heads[0] == upstream.heads[1]
    assert 'upstream_retries_total{upstream="auth"} 1.0' in answer.extensions["metrics"]
    assert 'upstream_requests_total{outcome="ok",upstream="auth"} 1.0' in answer.extensions["metrics"]


def test_once_and_not_twice(platform: Platform) -> None:
    with scripted(plain(503, b"first"), plain(503, b"second"), GOOD) as upstream:
        answer = ask(platform, upstream, "GET", JWKS)
    assert (answer.status_code, answer.content, len(upstream.heads)) == (503, b"second", 2)
    assert 'upstream_requests_total{outcome="error",upstream="auth"} 1.0' in answer.extensions["metrics"]


def test_hanging_up_twice(platform: Platform) -> None:
    with scripted(b"") as upstream:
        answer = ask(platform, upstream, "GET", JWKS)
    assert_problem(answer, 502, "upstream-failed")
    assert len(upstream.heads) == 2


@pytest.mark.parametrize("status", [200, 304, 404, 429, 500, 504])
def test_other_answers_are_final(platform: Platform, status: int) -> None:
    with scripted(plain(status), GOOD) as upstream:
        assert ask(platform, upstream, "GET", JWKS).status_code == status
    assert len(upstream.heads) == 1


@pytest.mark.parametrize("first", [b"", plain(503), plain(502)], ids=["hangs up", "503", "502"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/auth/login"), ("DELETE", IMAGE)])
def test_what_changes_something_is_not(platform: Platform, user: User, first: bytes, method: str, path: str) -> None:
    with scripted(first, GOOD) as upstream:
        answer = ask(platform, upstream, method, path, headers=user.headers)
    assert answer.status_code in (502, 503)
    assert len(upstream.heads) == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_old_connection_that_swallows_a_request(platform: Platform, user: User, method: str) -> None:
    """aiohttp repeats that by itself unless it is told not to: DELETE too, and GET once more than we do."""
    keep = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
    with (
        scripted(keep, b"", b"", GOOD) as upstream,
        platform.api(image_url=upstream.url) as server,
        httpx2.Client(base_url=server.url, headers=user.headers) as client,
    ):
        assert client.get(IMAGE).status_code == 200
        answer = client.request(method, IMAGE)
    assert answer.status_code == 502
    assert len(upstream.heads) == (3 if method == "GET" else 2)


def test_a_request_with_a_body_is_not(platform: Platform) -> None:
    """Its body is gone."""
    with scripted(plain(503), GOOD) as upstream:
        assert ask(platform, upstream, "GET", JWKS, content=b"x").status_code == 503
    assert len(upstream.heads) == 1


def test_an_answer_that_has_begun_is_not(platform: Platform) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this"
    with scripted(cut, GOOD) as upstream, platform.api(auth_url=upstream.url) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(server.url + JWKS)
        assert (
            'upstream_requests_total{outcome="broken",upstream="auth"} 1.0' in httpx2.get(f"{server.url}/metrics").text
        )
    assert len(upstream.heads) == 1


def test_a_timeout_is_not(platform: Platform) -> None:
    """It was waited for once already."""
    with live_asgi(slow) as upstream, platform.api(auth_url=upstream.url, relay_read_timeout=0.3) as server:
        assert_problem(httpx2.get(server.url + JWKS), 504, "upstream-timeout")
        metrics = httpx2.get(f"{server.url}/metrics").text
        assert 'upstream_requests_total{outcome="timeout",upstream="auth"} 1.0' in metrics
        assert 'upstream_retries_total{upstream="auth"}' not in metrics


def test_nobody_listens_and_the_deadline_holds_for_both_tries(platform: Platform) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with platform.api(auth_url=away) as server:
        assert_problem(httpx2.get(server.url + JWKS), 503, "upstream-unavailable")
        assert 'upstream_retries_total{upstream="auth"} 1.0' in httpx2.get(f"{server.url}/metrics").text
    with (
        scripted(plain(503), GOOD) as upstream,
        platform.api(auth_url=upstream.url, relay_head_timeout=0.01) as server,
    ):
        assert_problem(httpx2.get(server.url + JWKS), 504, "upstream-timeout")


def test_retries_have_a_budget(platform: Platform) -> None:
    """When everything fails, the upstream is not asked twice as much."""
    calls = 40
    with (
        scripted(plain(503)) as upstream,
        platform.api(auth_url=upstream.url) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        assert {client.get(JWKS).status_code for _ in range(calls)} == {503}
    assert calls + 10 <= len(upstream.heads) <= calls + 10 + calls // 10


def test_the_budget() -> None:
    budget = RetryBudget()
    assert [budget.take() for _ in range(int(AT_MOST) + 1)] == [True] * int(AT_MOST) + [False]
    for _ in range(9):
        budget.called()
        assert not budget.take()
    budget.called()
    budget.called()
    assert budget.take()
    for _ in range(1000):
        budget.called()
    assert sum(budget.take() for _ in range(1000)) == AT_MOST
