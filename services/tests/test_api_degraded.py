"""What goes on while something else does not: reads with auth, image or Redis down; and what is said about it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import jwt
from slipway_testing.checks import assert_problem
from slipway_testing.platform import Platform, User
from slipway_testing.processes import free_port
from slipway_testing.redis import RedisServer
from slipway_testing.servers import listen, live_asgi, url_of
from slipway_testing.tokens import mint
from slipway_testing.upstreams import echo

POSTS = "/api/v1/posts"
IMAGES = "/api/v1/images"


@contextmanager
def client_of(platform: Platform, **changes: Any) -> Iterator[httpx2.Client]:
    with platform.api(**changes) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        yield client


def away() -> str:
    return f"http://127.0.0.1:{free_port()}"


def health(client: httpx2.Client) -> dict[str, str]:
    """Each dependency's state, and that of the whole."""
    answer = client.get("/health").json()
    return {name: check["status"] for name, check in answer["checks"].items()} | {"": answer["status"]}


WELL = {"": "ok", "database": "ok", "redis": "ok", "auth": "ok", "image": "ok"}


def test_all_is_well(api: httpx2.Client) -> None:
    assert health(api) == WELL


def test_reads_before_auth_was_ever_seen(platform: Platform, user: User) -> None:
    """A gateway that starts while auth is down: public reads work, the rest says why not, and heals by itself."""
    sock = listen()
    url = url_of(sock)
    with client_of(
        platform, auth_url=url, auth_jwks_url=f"{url}/.well-known/jwks.json", service_tokens_url=f"{url}/service-tokens"
    ) as client:
        sock.close()
        assert client.get("/health/ready").status_code == 200
        assert client.get(POSTS).status_code == 200
        answer = client.get(f"{POSTS}/my", headers=user.headers)
        assert_problem(answer, 503, "keys-unavailable")
        assert answer.headers["retry-after"]
        answer = client.post("/api/v1/auth/login", json={})
        assert_problem(answer, 503, "service-token-unavailable")
        assert answer.headers["retry-after"]
        assert health(client) == WELL | {"": "degraded", "auth": "down"}


def test_everything_but_auth_goes_on_without_it(platform: Platform, user: User) -> None:
    """Keys and service tokens are there already: posts and images need nothing more of auth."""
    sock = listen()
    changes = {"auth_url": url_of(sock)}
    with client_of(platform, **changes) as client:
        sock.close()
        created = client.post(POSTS, json={"title": "x", "content": "y"}, headers=user.headers)
        assert created.status_code == 201
        assert client.get(f"{POSTS}/my", headers=user.headers).json()["items"] == [created.json()]
        assert client.get(IMAGES, headers=user.headers).status_code == 200
        assert_problem(client.post("/api/v1/auth/login", json={}), 503, "upstream-unavailable")
        assert health(client) == WELL | {"": "degraded", "auth": "down"}


def test_everything_but_images_goes_on_without_image(platform: Platform, user: User) -> None:
    with client_of(platform, image_url=away()) as client:
        assert client.get(POSTS).status_code == 200
        assert client.get(f"{POSTS}/my", headers=user.headers).status_code == 200
        answer = client.get(IMAGES, headers=user.headers)
        assert_problem(answer, 503, "upstream-unavailable")
        assert answer.headers["retry-after"]
        assert client.get("/api/v1/auth/.well-known/jwks.json").status_code == 200
        assert health(client) == WELL | {"": "degraded", "image": "down"}
        assert client.get("/health/ready").status_code == 200


def test_everything_goes_on_without_redis(platform: Platform, user: User) -> None:
    with client_of(platform, redis_port=free_port()) as client:
        created = client.post(POSTS, json={"title": "x", "content": "y"}, headers=user.headers)
        assert created.status_code == 201
        assert client.get(created.headers["location"]).json() == created.json()
        assert client.get(POSTS).json()["items"][0] == created.json()
        assert client.get(IMAGES, headers=user.headers).status_code == 200
        assert health(client) == WELL | {"": "degraded", "redis": "down"}
        assert client.get("/health/ready").status_code == 200


def test_nothing_goes_on_without_the_database(platform: Platform, user: User) -> None:
    with client_of(platform, database_port=free_port(), redis_port=free_port()) as client:
        answer = client.get(POSTS)
        assert_problem(answer, 503, "database-unavailable")
        assert answer.headers["retry-after"]
        report = client.get("/health")
        assert (report.status_code, report.json()["status"]) == (503, "down")
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        # What is not its own goes on.
        assert client.get("/api/v1/auth/.well-known/jwks.json").status_code == 200


def revoke(redis: RedisServer, session: str) -> None:
    """As auth does it."""
    with redis.admin() as client:
        client.zadd("auth:revoked-sessions", {session: time.time()})


def test_a_revoked_session_is_refused_and_stays_so_without_redis(
    platform: Platform, user: User, own_redis: RedisServer
) -> None:
    session = jwt.decode(user.token, options={"verify_signature": False})["sid"]
    other = mint(platform.key)
    with client_of(platform, **own_redis.settings("api")) as client:
        assert client.get(f"{POSTS}/my", headers=user.headers).status_code == 200
        revoke(own_redis, session)
        deadline = time.monotonic() + 5
        while client.get(f"{POSTS}/my", headers=user.headers).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        own_redis.stop()
        for path in (f"{POSTS}/my", IMAGES):
            assert_problem(client.get(path, headers=user.headers), 401, "invalid-token")
            assert client.get(path, headers={"Authorization": f"Bearer {other}"}).status_code == 200
        metrics = client.get("/metrics").text
        assert "revocations_known 1.0" in metrics


def test_auth_that_gives_no_service_token(platform: Platform, user: User) -> None:
    """Nothing is passed on without one: the service behind could not know who asks."""
    seen: list[object] = []

    async def remembering(scope: object, receive: object, send: object) -> None:
        seen.append(scope)
        await echo(scope, receive, send)  # type: ignore[arg-type]

    with (
        live_asgi(remembering) as upstream,
        platform.api(image_url=upstream.url, service_key="not-the-right-one") as server,
    ):
        answer = httpx2.get(f"{server.url}{IMAGES}", headers=user.headers)
        assert_problem(answer, 503, "service-token-unavailable")
        metrics = httpx2.get(f"{server.url}/metrics").text
        assert 'upstream_requests_total{outcome="unidentified",upstream="image"} 1.0' in metrics
    assert seen == []
