"""What goes on, and what is told, when something that a service depends on goes away; and that it all comes back.

Each test has services of its own behind wires that it cuts: `refusing` as when a pod is gone, `hanging` as when a
network drops packets. Nobody is restarted.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from slipway_testing.checks import assert_problem
from slipway_testing.images import jpeg
from slipway_testing.limits import UNLIMITED
from slipway_testing.outages import State, Wire, wire, wire_to
from slipway_testing.platform import BUCKET, PASSWORD, Platform, User
from slipway_testing.redis import RedisServer
from test_processes import running

pytestmark = pytest.mark.slow

# A request that waits for something that is away takes at most this long, whatever is away.
PATIENCE = 15.0


@dataclass
class Fragile:
    """The three services, with a wire to each thing that can go away."""

    platform: Platform
    auth: Wire
    redis: Wire
    store: Wire
    database: Wire
    api: httpx2.Client
    urls: dict[str, str]

    def cut(self, name: str, state: State = "refusing") -> None:
        getattr(self, name).set(state)

    def mend(self, name: str) -> None:
        getattr(self, name).set("open")

    def log_in(self, account: User) -> httpx2.Response:
        credentials = {"username": account.username, "password": PASSWORD}
        return self.api.post("/api/v1/auth/login", json=credentials)

    def upload(self, user: User, content: bytes | None = None) -> httpx2.Response:
        files = {"file": ("a.jpg", content or jpeg(), "image/jpeg")}
        return self.api.post("/api/v1/images", files=files, headers=user.headers)

    def metrics(self, service: str) -> str:
        return httpx2.get(f"{self.urls[service]}/metrics").text

    def health(self, service: str) -> dict[str, Any]:
        report: dict[str, Any] = httpx2.get(f"{self.urls[service]}/health").json()
        return report


@pytest.fixture(scope="module")
def fragile(platform: Platform) -> Iterator[Fragile]:
    with ExitStack() as stack:

        def wired(made: Wire) -> Wire:
            stack.callback(made.close)
            return made

        redis = wired(Wire(platform.redis.host, platform.redis.port))
        store = wired(wire_to(platform.store.url))
        database = wired(Wire(platform.postgres.host, platform.postgres.port))
        short: dict[str, Any] = {
            "redis_port": redis.port,
            "database_port": database.port,
            "database_connect_timeout": 1,
            "database_command_timeout": 1,
            "database_acquire_timeout": 1,
        }
        auth_server = stack.enter_context(platform.auth(**short, **UNLIMITED, revocations_interval_seconds=0.5))
        auth = wired(wire_to(auth_server.url))
        trusting = short | {
            "auth_jwks_url": f"{auth.url}/.well-known/jwks.json",
            "service_tokens_url": f"{auth.url}/service-tokens",
        }
        image_server = stack.enter_context(
            platform.image(**trusting, s3_endpoint=store.url, s3_connect_timeout=1, s3_read_timeout=1)
        )
        api_server = stack.enter_context(
            platform.api(
                **trusting,
                auth_url=auth.url,
                image_url=image_server.url,
                relay_connect_timeout=1,
                relay_read_timeout=6,
                relay_head_timeout=7,
            )
        )
        client = stack.enter_context(httpx2.Client(base_url=api_server.url, timeout=20))
        urls = {"auth": auth_server.url, "image": image_server.url, "api": api_server.url}
        yield Fragile(platform, auth, redis, store, database, client, urls)


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test cut is whole again for the next, and everything works again by itself."""
    yield
    if "fragile" not in request.fixturenames:
        return
    everything: Fragile = request.getfixturevalue("fragile")
    for name in ("auth", "redis", "store", "database"):
        everything.mend(name)
    account = everything.platform.new_account()
    eventually(lambda: everything.log_in(account).status_code == 200)
    eventually(lambda: everything.upload(account).status_code == 201)
    eventually(lambda: post(everything.api, account).status_code == 201)


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def post(api: httpx2.Client, user: User) -> httpx2.Response:
    return api.post("/api/v1/posts", json={"title": "t", "content": "c"}, headers=user.headers)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    taken = time.monotonic() - started
    assert taken < seconds, f"took {taken:.1f} s"


def told(answer: httpx2.Response, *statuses: int) -> None:
    """A failure that says so: a problem, and when to come again."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1


# auth is away


@pytest.mark.parametrize("state", ["refusing", "hanging"])
def test_without_auth_work_goes_on(fragile: Fragile, state: State) -> None:
    """Whoever is signed in notices nothing; signing in is told to wait."""
    account = fragile.platform.new_account()
    content = jpeg()
    image = fragile.upload(account, content).json()["filename"]
    fragile.cut("auth", state)
    with within(5):
        assert fragile.api.get("/api/v1/posts").status_code == 200
        assert post(fragile.api, account).status_code == 201
        assert len(fragile.api.get("/api/v1/posts/my", headers=account.headers).json()["items"]) == 1
        assert fragile.api.get(f"/api/v1/images/{image}", headers=account.headers).content == content
        assert fragile.upload(account).status_code == 201
    with within(PATIENCE):
        told(fragile.log_in(account), 503, 504)
    for service in ("api", "image"):
        assert httpx2.get(f"{fragile.urls[service]}/health/ready").status_code == 200


def test_the_circuit_to_auth_opens_and_closes(fragile: Fragile) -> None:
    """When it hangs, not every caller waits for its own deadline; when it is back, somebody tries."""
    account = fragile.platform.new_account()
    assert fragile.log_in(account).status_code == 200
    fragile.cut("auth", "hanging")
    # As many at once as a rush of sign-ins.
    with ThreadPoolExecutor(16) as pool, within(3 * PATIENCE):
        for answer in pool.map(lambda _: fragile.log_in(account), range(48)):
            told(answer, 503, 504)
    taken = []
    for _ in range(4):
        started = time.monotonic()
        answer = fragile.log_in(account)
        taken.append(time.monotonic() - started)
        told(answer, 503, 504)
    # At most one of them was the trial, which waits for all the others.
    assert sum(seconds < 1 for seconds in taken) >= 3, taken
    assert_problem(answer, 503, "upstream-unavailable")
    # One upstream's trouble is not another's.
    assert fragile.upload(account).status_code == 201
    fragile.mend("auth")
    eventually(lambda: fragile.log_in(account).status_code == 200)


def test_a_gateway_that_starts_before_auth(platform: Platform) -> None:
    user = platform.new_user()
    with wire_closing(wire_to(platform.url("auth"))) as auth:
        auth.set("refusing")
        changes: dict[str, Any] = {
            "auth_url": auth.url,
            "auth_jwks_url": f"{auth.url}/.well-known/jwks.json",
            "service_tokens_url": f"{auth.url}/service-tokens",
        }
        with platform.api(**changes) as server, httpx2.Client(base_url=server.url, timeout=20) as client:
            assert client.get("/api/v1/posts").status_code == 200
            answer = client.get("/api/v1/posts/my", headers=user.headers)
            assert_problem(answer, 503, "keys-unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            auth.set("open")
            eventually(lambda: client.get("/api/v1/posts/my", headers=user.headers).status_code == 200)
            eventually(lambda: client.get("/api/v1/images", headers=user.headers).status_code == 200)


@contextmanager
def wire_closing(made: Wire) -> Iterator[Wire]:
    try:
        yield made
    finally:
        made.close()


# Redis is away


@pytest.mark.parametrize("state", ["refusing", "hanging"])
def test_without_redis_everything_works(fragile: Fragile, state: State) -> None:
    """Limits fail open, caches are passed by, revocations are what was known; and it is counted."""
    account = fragile.platform.new_account()
    fragile.cut("redis", state)
    with within(PATIENCE):
        login = fragile.log_in(account)
        assert login.status_code == 200, login.text
        tokens = login.json()
        refreshed = fragile.api.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert refreshed.status_code == 200, refreshed.text
        made = post(fragile.api, account)
        assert made.status_code == 201
        # A read after one's own write sees it, whatever a cache says.
        listed = fragile.api.get("/api/v1/posts", params={"limit": 100}).json()["items"]
        assert made.json()["id"] in {item["id"] for item in listed}
        assert fragile.upload(account).status_code == 201
        bye = fragile.api.post("/api/v1/auth/logout", json={"refresh_token": refreshed.json()["refresh_token"]})
        assert bye.status_code == 204
    for service in ("auth", "api", "image"):
        assert "redis_unavailable_total" in fragile.metrics(service)
        assert httpx2.get(f"{fragile.urls[service]}/health/ready").status_code == 200
    assert fragile.health("auth")["status"] == "degraded"


def test_a_hanging_redis_costs_next_to_nothing(fragile: Fragile) -> None:
    """After a failure it is not asked for a while: a hundred reads do not wait a hundred times."""
    fragile.api.get("/api/v1/posts")
    fragile.cut("redis", "hanging")
    # A quarter of a second each would be twenty-five.
    with within(12):
        for _ in range(100):
            assert fragile.api.get("/api/v1/posts").status_code == 200


def test_what_is_revoked_while_redis_is_away(fragile: Fragile) -> None:
    """The written decision: auth itself is never fooled; others go on with what they know, until Redis is back."""
    account = fragile.platform.new_account()
    tokens = fragile.log_in(account).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert fragile.api.get("/api/v1/posts/my", headers=bearer).status_code == 200
    fragile.cut("redis")
    bye = fragile.api.post("/api/v1/auth/logout", json={"refresh_token": tokens["refresh_token"]})
    assert bye.status_code == 204
    again = fragile.api.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert_code(again, 401, "invalid-refresh-token")
    seen = fragile.api.post("/api/v1/auth/verify", json={"token": tokens["access_token"]}).json()
    assert seen == {"active": False}
    change = {"current_password": PASSWORD, "new_password": "never to be seen again"}
    assert fragile.api.post("/api/v1/auth/password", json=change, headers=bearer).status_code == 401
    # The part of the decision that is a price: at most the rest of fifteen minutes.
    assert fragile.api.get("/api/v1/posts/my", headers=bearer).status_code == 200
    fragile.mend("redis")
    eventually(lambda: fragile.api.get("/api/v1/posts/my", headers=bearer).status_code == 401)


def assert_code(answer: httpx2.Response, status: int, code: str) -> None:
    """As assert_problem, for answers of services behind the gateway: `instance` is the path there."""
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"urn:slipway:problem:{code}"


def test_a_redis_that_forgot_everything(platform: Platform, own_redis: RedisServer) -> None:
    """It comes back empty: auth writes again what counts, and nobody's token comes back to life meanwhile."""
    with ExitStack() as stack:
        enter = stack.enter_context
        auth = enter(platform.auth(**(own_redis.settings("auth") | UNLIMITED | {"revocations_interval_seconds": 0.5})))
        urls = {"auth_jwks_url": f"{auth.url}/.well-known/jwks.json"}
        old = enter(platform.api(**(own_redis.settings("api") | urls)))
        account = platform.new_account()
        assert httpx2.post(f"{auth.url}/logout", json={}, headers=account.headers).status_code == 204

        def refused(url: str) -> bool:
            return httpx2.get(f"{url}/api/v1/posts/my", headers=account.headers).status_code == 401

        eventually(lambda: refused(old.url))
        own_redis.stop()
        assert refused(old.url)
        own_redis.start()
        # One that starts now has nothing to remember: it learns from Redis, and Redis from auth.
        new = enter(platform.api(**(own_redis.settings("api") | urls)))
        eventually(lambda: refused(new.url))
        assert refused(old.url)


# The store is away


@pytest.mark.parametrize("state", ["refusing", "hanging"])
def test_without_the_store_only_bytes_are_missing(fragile: Fragile, state: State) -> None:
    account = fragile.platform.new_account()
    name = fragile.upload(account).json()["filename"]
    keys = fragile.platform.store.keys(BUCKET)
    fragile.cut("store", state)
    with within(3 * PATIENCE):
        told(fragile.upload(account), 503)
        told(fragile.api.get(f"/api/v1/images/{name}", headers=account.headers), 503)
        told(fragile.api.get(f"/api/v1/images/{name}/160", headers=account.headers), 503)
    # A client that has the bytes already needs none.
    listed = fragile.api.get("/api/v1/images", headers=account.headers).json()["items"]
    assert [item["filename"] for item in listed] == [name]
    assert fragile.api.get("/api/v1/images/stats", headers=account.headers).json()["images"] == 1
    assert fragile.api.get(f"/api/v1/images/{name}/metadata", headers=account.headers).status_code == 200
    assert fragile.api.get("/api/v1/posts").status_code == 200
    fragile.mend("store")
    assert fragile.platform.store.keys(BUCKET) == keys
    eventually(lambda: fragile.api.get(f"/api/v1/images/{name}", headers=account.headers).status_code == 200)


def test_a_delete_without_the_store_is_a_delete(fragile: Fragile) -> None:
    """The row goes first: it is gone for everybody, or it is told that it is not; never half of it."""
    account = fragile.platform.new_account()
    name = fragile.upload(account).json()["filename"]
    fragile.cut("store")
    answer = fragile.api.delete(f"/api/v1/images/{name}", headers=account.headers)
    assert answer.status_code in (204, 503), answer.text
    fragile.mend("store")
    expected = 404 if answer.status_code == 204 else 200
    eventually(lambda: fragile.api.get(f"/api/v1/images/{name}", headers=account.headers).status_code == expected)


# The database is away


@pytest.mark.parametrize("state", ["refusing", "hanging"])
def test_without_the_database_each_failure_is_told(fragile: Fragile, state: State) -> None:
    account = fragile.platform.new_account()
    fragile.cut("database", state)
    with within(5 * PATIENCE):
        told(post(fragile.api, account), 503)
        told(fragile.api.get("/api/v1/posts/my", headers=account.headers), 503)
        told(fragile.log_in(account), 503, 504)
        told(fragile.upload(account), 503, 504)
        # Tokens are checked by keys, and the keys are no rows.
        assert httpx2.get(f"{fragile.urls['auth']}/.well-known/jwks.json").status_code == 200
    for service in ("auth", "api", "image"):
        assert httpx2.get(f"{fragile.urls[service]}/health/ready", timeout=20).status_code == 503
        assert httpx2.get(f"{fragile.urls[service]}/health/live").status_code == 200
    fragile.mend("database")
    eventually(lambda: fragile.log_in(account).status_code == 200)


# A process is asked to end


def test_sigterm_of_the_gateway_loses_no_request(platform: Platform, tmp_path: Path) -> None:
    """Reads, writes and slow uploads are under way when the signal comes, and more come after it: all are answered."""
    user = platform.new_user()
    settings = platform.api_settings | {"shutdown_delay_seconds": 2, "shutdown_grace_seconds": 10}
    with running("slipway_api", settings, tmp_path / "secrets") as service:
        stop_at = time.monotonic() + 2.0
        slow_started = threading.Event()

        def load(number: int) -> list[int]:
            seen = []
            with httpx2.Client(base_url=service.url, timeout=20) as client:
                while time.monotonic() < stop_at:
                    answer = client.get("/api/v1/posts") if number % 2 else post(client, user)
                    seen.append(answer.status_code)
                    # Steady, not as fast as it goes: its log is read at the end, and a full pipe stops whoever writes.
                    time.sleep(0.05)
            return seen

        def slow_upload() -> int:
            boundary = "cut"
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'.encode()
            content = jpeg(400_000)

            def body() -> Iterator[bytes]:
                yield head
                for start in range(0, len(content), 20_000):
                    yield content[start : start + 20_000]
                    slow_started.set()
                    time.sleep(0.15)
                yield f"\r\n--{boundary}--\r\n".encode()

            headers = user.headers | {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            return httpx2.post(f"{service.url}/api/v1/images", content=body(), headers=headers, timeout=30).status_code

        with ThreadPoolExecutor(6) as pool:
            upload = pool.submit(slow_upload)
            loads = [pool.submit(load, number) for number in range(4)]
            assert slow_started.wait(5)
            time.sleep(0.3)
            service.process.send_signal(signal.SIGTERM)
            statuses = [status for each in loads for status in each.result()]
            # The upload takes three seconds: longer than the delay, shorter than the grace after it.
            assert upload.result() == 201
        code, log, error = service.finish()
    assert set(statuses) == {200, 201}
    assert len(statuses) > 15
    assert (code, error) == (0, "")
    assert not [line for line in log if line["level"] in ("error", "critical")]


# The form of every error


ERRORS = [
    ("auth", "GET", "/nothing", {}, 404),
    ("auth", "GET", "/login", {}, 405),
    ("auth", "PUT", "/register", {}, 405),
    ("auth", "POST", "/login", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
    ("auth", "POST", "/login", {"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 400),
    ("auth", "POST", "/login", {"json": []}, 422),
    ("auth", "POST", "/login", {"content": b"a=b", "headers": {"Content-Type": "text/plain"}}, 422),
    ("auth", "POST", "/login", {"content": b"x" * 70_000, "headers": {"Content-Type": "application/json"}}, 413),
    ("auth", "POST", "/password", {"json": {}}, 401),
    ("auth", "POST", "/service-tokens", {"json": {"audience": "image"}}, 401),
    ("api", "GET", "/", {}, 404),
    ("api", "GET", "/metrics/../nothing", {}, 404),
    ("api", "PATCH", "/api/v1/posts", {}, 405),
    ("api", "TRACE", "/api/v1/posts", {}, 405),
    ("api", "POST", "/api/v1/posts", {"json": {"title": "t", "content": "c"}}, 401),
    ("api", "GET", "/api/v1/posts?limit=0", {}, 422),
    ("api", "GET", "/api/v1/posts?cursor=x", {}, 422),
    ("api", "GET", "/api/v1/posts/not-an-id", {}, 422),
    ("api", "GET", "/api/v1/posts/00000000-0000-0000-0000-000000000000", {}, 404),
    ("api", "GET", "/api/v1/images/../../etc/passwd", {}, 404),
    ("image", "GET", "/images", {}, 401),
    ("image", "GET", "/nothing", {}, 404),
    ("image", "PUT", "/upload", {}, 405),
]


@pytest.mark.parametrize(("service", "method", "path", "request_", "status"), ERRORS)
def test_every_error_is_a_problem(
    platform: Platform, service: str, method: str, path: str, request_: dict[str, Any], status: int
) -> None:
    answer = httpx2.request(method, f"{platform.url(service)}{path}", **request_)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "instance", "request_id"} <= set(problem)
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    if status == 405:
        assert answer.headers["allow"]
    if status == 401:
        assert answer.headers["www-authenticate"]


def test_an_error_tells_nothing_of_the_inside(fragile: Fragile) -> None:
    """Neither who did not answer, nor where, nor by which name."""
    account = fragile.platform.new_account()
    fragile.cut("database")
    fragile.cut("store")
    texts = [
        fragile.log_in(account).text,
        post(fragile.api, account).text,
        fragile.upload(account).text,
        fragile.api.get("/api/v1/images", headers=account.headers).text,
    ]
    inside = [
        "127.0.0.1",
        str(fragile.database.port),
        "asyncpg",
        "minio",
        "postgres",
        "_user",
        "_db",
        "Traceback",
        "SELECT",
        *(str(fragile.platform.image_settings[name]) for name in ("s3_secret_key", "database_password")),
    ]
    for text in texts:
        assert json.loads(text)["status"] >= 500, text
        for word in inside:
            assert word.lower() not in text.lower(), (word, text)


def test_wires_do_what_these_tests_believe(platform: Platform) -> None:
    """Otherwise everything above shows nothing."""
    url = platform.url("auth")
    host, _, port = url.removeprefix("http://").partition(":")
    with wire(host, int(port)) as made, httpx2.Client(base_url=made.url, timeout=0.5) as client:
        assert client.get("/health/live").status_code == 200
        made.set("hanging")
        with pytest.raises(httpx2.ReadTimeout):
            client.get("/health/live")
        made.set("refusing")
        with pytest.raises(httpx2.ConnectError):
            client.get("/health/live")
        made.set("open")
        assert client.get("/health/live").status_code == 200
