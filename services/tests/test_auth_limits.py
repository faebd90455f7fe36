"""Rate limits: what is counted for whom, what a refusal says, and that without Redis everybody still gets in."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItem, parse
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from slipway_auth.limits import RateLimits, address_identity, name_identity
from slipway_auth.settings import Settings, parse_rate
from slipway_kit.problems import Problem
from slipway_kit.redis import Redis
from slipway_kit.settings import RedisSettings
from slipway_testing.checks import assert_problem
from slipway_testing.platform import ONE_ADDRESS, PASSWORD, PUBLIC_URL, Platform, User
from slipway_testing.redis import RedisServer

WRONG = "wrong password"
UNLIMITED = ONE_ADDRESS | {"limit_login_user": "", "limit_password_user": ""}
# A busy machine must not look like a Redis that is away: then nothing is limited.
PATIENT: dict[str, Any] = {"redis_timeout": 10.0}


@contextmanager
def serving(platform: Platform, **changes: Any) -> Iterator[httpx2.Client]:
    """An auth with the given limits only, counting in keys that no other test has: its addresses and names are new."""
    with platform.auth(**(UNLIMITED | PATIENT | changes)) as server, httpx2.Client(base_url=server.url) as client:
        yield client


def try_login(client: httpx2.Client, username: str, password: str = WRONG, **headers: str) -> httpx2.Response:
    return client.post("/login", json={"username": username, "password": password}, headers=headers)


def new_address() -> str:
    """Of the block that is reserved for benchmarks, so that it is nobody's."""
    return f"198.18.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


def metric(client: httpx2.Client, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, series
    return float(found[1])


def assert_limited(answer: httpx2.Response, at_most: int) -> None:
    assert_problem(answer, 429, "rate-limited")
    assert 1 <= int(answer.headers["retry-after"]) <= at_most


def test_guessing_for_one_name_is_stopped_and_others_go_on(platform: Platform, account: User) -> None:
    with serving(platform, limit_login_user="3/minute") as client:
        for _ in range(3):
            assert_problem(try_login(client, account.username), 401, "invalid-credentials")
        assert_limited(try_login(client, account.username), 60)
        # Not even the right password: that would tell a guesser when he has it.
        assert_limited(try_login(client, account.username, PASSWORD), 60)
        assert_limited(try_login(client, f" {account.username.upper()} ", PASSWORD), 60)
        other = platform.new_account("other")
        assert try_login(client, other.username, PASSWORD).status_code == 200
        assert metric(client, 'auth_rate_limited_total{operation="login",scope="user"}') == 3
        assert metric(client, 'auth_logins_total{result="limited"}') == 3


def test_names_that_nobody_has_are_limited_like_others(platform: Platform) -> None:
    """Else a 429 would tell which names exist."""
    name = f"nobody-{secrets.token_hex(6)}"
    with serving(platform, limit_login_user="2/minute") as client:
        assert [try_login(client, name).status_code for _ in range(3)] == [401, 401, 429]


def test_a_right_password_sets_the_count_of_its_name_back(platform: Platform, account: User) -> None:
    with serving(platform, limit_login_user="3/minute") as client:
        for _ in range(3):
            for _ in range(2):
                assert try_login(client, account.username).status_code == 401
            assert try_login(client, account.username, PASSWORD).status_code == 200


def test_one_address_is_stopped_whatever_names_it_tries(platform: Platform, account: User) -> None:
    token = platform.service_headers("api", "auth")
    here, there = new_address(), new_address()
    with serving(platform, limit_login_address="3/minute") as client:
        for _ in range(3):
            assert try_login(client, secrets.token_hex(6), **token, **{"X-Forwarded-For": here}).status_code == 401
        # A login of its own, in between, does not set this count back.
        answer = try_login(client, account.username, PASSWORD, **token, **{"X-Forwarded-For": here})
        assert_limited(answer, 60)
        answer = try_login(client, account.username, PASSWORD, **token, **{"X-Forwarded-For": there})
        assert answer.status_code == 200
        assert metric(client, 'auth_rate_limited_total{operation="login",scope="address"}') == 1


def test_only_the_gateway_says_who_it_forwards_for(platform: Platform) -> None:
    """The header alone, with a token of another service, for another service, or of a user: all are one address."""
    wrong: list[dict[str, str]] = [
        {},
        {"X-Service-Token": "nonsense"},
        platform.service_headers("image", "auth"),
        platform.service_headers("api", "image"),
        platform.service_headers("api", "auth", exp=int(time.time()) - 60),
        {"X-Service-Token": platform.new_account().token},
    ]
    with serving(platform, limit_register_address=f"{len(wrong)}/hour") as client:

        def register(headers: dict[str, str]) -> int:
            body = {"username": f"ada-{secrets.token_hex(6)}", "password": PASSWORD}
            return client.post("/register", json=body, headers=headers | {"X-Forwarded-For": new_address()}).status_code

        before = [register(headers) for headers in wrong]
        # Another test may have used up a part of it.
        assert set(before) <= {201, 429}
        assert [register(headers) for headers in wrong] == [429] * len(wrong)
        assert register(platform.service_headers("api", "auth")) == 201


def test_a_limit_for_all_of_them_together(platform: Platform) -> None:
    token = platform.service_headers("api", "auth")
    with serving(platform, limit_login_all="4/minute") as client:
        statuses = [
            try_login(client, secrets.token_hex(6), **token, **{"X-Forwarded-For": new_address()}).status_code
            for _ in range(6)
        ]
        assert statuses == [401] * 4 + [429] * 2
        assert metric(client, 'auth_rate_limited_total{operation="login",scope="all"}') == 2


def test_tries_at_once_do_not_slip_through(platform: Platform) -> None:
    name = f"nobody-{secrets.token_hex(6)}"
    with serving(platform, limit_login_user="3/minute") as client, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: try_login(client, name).status_code, range(12)))
    assert sorted(statuses) == [401] * 3 + [429] * 9


def test_guessing_a_password_with_a_stolen_access_token(platform: Platform, account: User) -> None:
    with serving(platform, limit_password_user="2/minute") as client:

        def change(current: str) -> httpx2.Response:
            body = {"current_password": current, "new_password": PASSWORD}
            return client.post("/password", json=body, headers=account.headers)

        assert [change("wrong password").status_code, change(PASSWORD).status_code] == [401, 204]
        assert [change("wrong password").status_code for _ in range(2)] == [401] * 2
        assert_limited(change(PASSWORD), 60)


def test_refreshing_and_service_tokens_have_limits_of_their_own(platform: Platform) -> None:
    limits = {"limit_refresh_address": "1/hour", "limit_service_tokens_address": "1/hour"}
    with serving(platform, **limits) as client:
        for _ in range(2):
            refreshed = client.post("/refresh", json={"refresh_token": "unknown"})
            granted = client.post("/service-tokens", json={"audience": "image"}, auth=("api", "wrong"))
        assert_limited(refreshed, 3600)
        assert_limited(granted, 3600)


def test_without_redis_everybody_gets_in_and_a_metric_tells(platform: Platform, account: User) -> None:
    nothing_there = {"redis_port": 1}
    with serving(platform, limit_login_user="1/hour", limit_login_address="1/hour", **nothing_there) as client:
        started = time.monotonic()
        for _ in range(3):
            answer = try_login(client, account.username, PASSWORD)
            assert answer.status_code == 200
        assert time.monotonic() - started < 5
        assert metric(client, 'auth_rate_limits_skipped_total{operation="login"}') == 3
        assert metric(client, 'redis_unavailable_total{operation="limits"}') >= 3
        # All the rest works, too.
        assert client.post("/refresh", json={"refresh_token": answer.json()["refresh_token"]}).status_code == 200
        assert (
            client.post("/logout", headers={"Authorization": f"Bearer {answer.json()['access_token']}"}).status_code
            == 204
        )
        assert client.get("/health/ready").status_code == 200
        health = client.get("/health").json()
        assert (health["status"], health["checks"]["redis"]["status"]) == ("degraded", "down")


def test_redis_does_not_learn_who_logs_in(platform: Platform, account: User) -> None:
    with serving(platform, limit_login_user="5/minute") as client:
        try_login(client, account.username)
    with platform.redis.admin() as redis:
        keys = [key for key in redis.keys("*") if "login" in key]
        assert any(name_identity(account.username) in key for key in keys)
        assert all(key.startswith("auth:limits:") for key in keys)
        assert not any(account.username in key for key in keys)
        # Nothing stays for ever.
        assert all(0 < redis.ttl(key) <= 2 * 3600 for key in redis.keys("auth:limits:*"))


def test_a_new_redis_does_not_know_the_scripts_and_learns_them(own_redis: RedisServer, platform: Platform) -> None:
    with serving(platform, limit_login_user="2/minute", **own_redis.settings("auth")) as client:
        name = secrets.token_hex(6)
        assert try_login(client, name).status_code == 401
        own_redis.stop()
        assert try_login(client, name).status_code == 401
        own_redis.start()
        deadline = time.monotonic() + 10
        while client.get("/health").json()["checks"]["redis"]["status"] == "down":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # Past the pause after a failure. What was counted is lost; counting begins anew.
        time.sleep(1.1)
        assert [try_login(client, name).status_code for _ in range(3)] == [401, 401, 429]


# The limiter itself


@asynccontextmanager
async def limiting(server: RedisServer, **scopes: str) -> AsyncIterator[RateLimits]:
    values: dict[str, Any] = {"port": 3001, "public_url": PUBLIC_URL, **PATIENT, **server.settings("auth")}
    registry = CollectorRegistry()
    redis = Redis(RedisSettings(**values), registry, "test")
    try:
        yield RateLimits(redis, registry, {"try": {scope: parse_rate(rate) for scope, rate in scopes.items()}})
    finally:
        await redis.close()


async def outcome(limits: RateLimits, **identities: str) -> int | None:
    """None when it was let through, else after how many seconds to come back."""
    try:
        await limits.check("try", **identities)
    except Problem as problem:
        assert problem.headers is not None
        return int(problem.headers["Retry-After"])
    return None


async def test_what_is_refused_by_one_scope_does_not_count_in_the_next(redis_server: RedisServer) -> None:
    async with limiting(redis_server, address="2/hour", all="3/hour") as limits:
        loud, quiet = secrets.token_hex(6), secrets.token_hex(6)
        for _ in range(10):
            await outcome(limits, address=loud)
        assert await outcome(limits, address=quiet) is None
        assert await outcome(limits, address=quiet) is not None


async def test_the_window_slides(redis_server: RedisServer) -> None:
    """Half a window after one that was used up, half of the tries are back: not all, as at the turn of fixed ones."""
    async with limiting(redis_server, address="6/100second") as limits:
        who = secrets.token_hex(6)
        assert [await outcome(limits, address=who) for _ in range(6)] == [None] * 6
        wait = await outcome(limits, address=who)
        assert wait is not None and 90 <= wait <= 100
        # The counter of a window lives for two, and counts less and less in the second: make it 150 s older.
        with redis_server.admin() as redis:
            (window,) = (key for key in redis.keys("auth:limits:*") if who in key)
            assert 190 < redis.ttl(window) <= 200
            redis.pexpire(window, 50_000)
        passed = 0
        while await outcome(limits, address=who) is None:
            passed += 1
        assert passed in (3, 4)


async def test_forgetting_what_is_not_limited_does_nothing(redis_server: RedisServer) -> None:
    async with limiting(redis_server, address="1/hour", user="") as limits:
        await limits.forget("try", "user", "ada")
        assert await outcome(limits, address=secrets.token_hex(6), user="ada") is None


async def test_without_redis_at_the_refusal_the_whole_window_is_named(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise ConnectionError

    async with limiting(redis_server, address="1/7minutes") as limits:
        who = secrets.token_hex(6)
        monkeypatch.setattr(limits._limiter, "get_window_stats", gone)
        assert [await outcome(limits, address=who) for _ in range(2)] == [None, 420]


@settings(deadline=None, max_examples=50)
@given(amount=st.integers(1, 5), tries=st.lists(st.sampled_from(["ada", "bob", "eve"]), max_size=12))
def test_each_gets_exactly_the_allowed_number(redis_server: RedisServer, amount: int, tries: list[str]) -> None:
    run = secrets.token_hex(6)

    async def check() -> None:
        async with limiting(redis_server, user=f"{amount}/hour") as limits:
            done: dict[str, int] = {}
            for who in tries:
                done[who] = done.get(who, 0) + 1
                allowed = await outcome(limits, user=f"{run}-{who}") is None
                assert allowed == (done[who] <= amount)

    asyncio.run(check())


@given(st.text(max_size=300))
def test_any_name_is_a_short_part_of_a_key(name: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", name_identity(name))


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("", "unknown"),
        ("somewhere", "unknown"),
    ],
)
def test_addresses(address: str, identity: str) -> None:
    assert address_identity(address) == identity


@pytest.mark.parametrize("text", ["10/5minutes", "10 per 5 minutes", "1/second", "100/hour"])
def test_rates_as_settings(text: str) -> None:
    assert isinstance(parse_rate(text), RateLimitItem)
    assert parse_rate(text) == parse(text)


@pytest.mark.parametrize("text", ["10", "0/minute", "-1/minute", "10/fortnight", "many", "1/second;5/minute", " "])
def test_rates_that_are_none(platform: Platform, text: str) -> None:
    with pytest.raises(ValidationError, match="a number, a slash and a time"):
        Settings(**(platform.auth_settings | {"limit_login_user": text}))
