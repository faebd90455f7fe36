"""The role redis by itself: its objects, and its users as a real Redis understands them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis
import redis.asyncio
import yaml
from certificates import server_certificate
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tests.rendering.conftest import ROOT, pick

sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))


VERSIONS = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
KUBERNETES = ".".join(str(VERSIONS["kubernetes_version"]).split(".")[:2])
TEMPLATES = ("secret.yml.j2", "service.yml.j2", "config.yml.j2", "statefulset.yml.j2")
USERS: list[dict[str, Any]] = [
    {"name": "api", "password": "password-of-api", "reads": ["auth:revoked-sessions"]},
    {"name": "auth", "password": "password-of-auth"},
]
START_SECONDS = 20


TLS = server_certificate("redis", "127.0.0.1", "redis.infrastructure.svc")


def documents(render: Any, **variables: Any) -> list[dict[str, Any]]:
    given = {
        "redis_image": "slipway.local/redis:test",
        "redis_monitor_password": "password-of-the-monitor",
        "redis_certificate": TLS["redis_certificate"],
        "redis_certificate_key": TLS["redis_key"],
        "redis_ca_certificate": TLS["ca_certificate"],
        "redis_users": USERS,
    }
    return list(render("redis", *TEMPLATES, **given | variables))


def secret_file(rendered: list[dict[str, Any]], name: str) -> str:
    return base64.b64decode(pick(rendered, "Secret", "redis")["data"][name]).decode()


def acl(rendered: list[dict[str, Any]]) -> str:
    return secret_file(rendered, "users.acl")


@pytest.mark.parametrize("variables", [{}, {"redis_users": []}, {"redis_storage_class": "fast"}])
def test_every_document_is_valid(render: Any, variables: dict[str, Any]) -> None:
    for document in documents(render, **variables):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/name"] == "redis"


def test_the_file_of_users_holds_no_password(render: Any) -> None:
    text = acl(documents(render))
    assert "password" not in text
    assert text.count("#") == len(USERS) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"redis_users": [USERS[0] | {"password": "another"}, USERS[1]]},
        {"redis_users": USERS[:1]},
        {"redis_maxmemory": "64Mi"},
        {"redis_image_revision": "another"},
        {"redis_certificate": "another"},
        {"redis_ca_certificate": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_redis_reads_at_its_start_restarts_it(render: Any, change: dict[str, Any]) -> None:
    before, after = documents(render), documents(render, **change)
    assert (
        pick(before, "StatefulSet", "redis")["spec"]["template"]
        != pick(after, "StatefulSet", "redis")["spec"]["template"]
    )


def test_the_exporter_asks_the_redis_beside_it_by_the_name_of_its_certificate(render: Any) -> None:
    rendered = documents(render, redis_namespace="elsewhere")
    spec = pick(rendered, "StatefulSet", "redis")["spec"]["template"]["spec"]
    [exporter] = [container for container in spec["containers"] if container["name"] == "exporter"]
    assert "-redis.addr=rediss://redis.elsewhere.svc:6379" in exporter["args"]
    assert spec["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["redis.elsewhere.svc"]}]
    known = json.loads(secret_file(rendered, "exporter.json"))
    assert known == {"rediss://_monitor@redis.elsewhere.svc:6379": "password-of-the-monitor"}
    assert not [argument for argument in exporter["args"] if "password-of" in argument or "skip-tls" in argument]


# --- in a real server


class Server:
    """A Redis with the role's own settings and users."""

    def __init__(self, port: int, ca: Path) -> None:
        self.port, self.ca = port, ca
        self.clients: list[Any] = []

    def client(self, name: str | None = None, password: str | None = None) -> Any:
        once = Retry(NoBackoff(), 0)
        found = redis.Redis(
            "127.0.0.1",
            self.port,
            username=name,
            password=password,
            socket_timeout=5,
            retry=once,
            ssl=True,
            ssl_ca_certs=str(self.ca),
        )
        self.clients.append(found)
        return found


def start(directory: Path, rendered: list[dict[str, Any]], port: int) -> subprocess.Popen[bytes]:
    """Start a server as the pod does; only its places are others."""
    settings = pick(rendered, "ConfigMap", "redis")["data"]["redis.conf"]
    places = {"/run/secrets/redis/": f"{directory}/", "dir /data": f"dir {directory}"}
    for place, other in places.items():
        assert place in settings
        settings = settings.replace(place, other)
    for name in pick(rendered, "Secret", "redis")["data"]:
        (directory / name).write_text(secret_file(rendered, name), encoding="utf-8")
    (directory / "redis.conf").write_text(settings, encoding="utf-8")
    command = ["redis-server", str(directory / "redis.conf"), "--tls-port", str(port), "--bind", "127.0.0.1"]
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def running(directory: Path, rendered: list[dict[str, Any]]) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, server = start(directory, rendered, port), Server(port, directory / "ca.crt")
    try:
        limit = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None and time.monotonic() < limit, (directory / "log").read_text(encoding="utf-8")
            time.sleep(0.05)
        yield server
    finally:
        for client in server.clients:
            client.close()
        process.terminate()
        process.wait(START_SECONDS)


@pytest.fixture(scope="module")
def server(render: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server."""
    with running(tmp_path_factory.mktemp("redis"), documents(render)) as found:
        yield found


@pytest.fixture
def api(server: Server) -> Any:
    """Return a connection of the service api."""
    return server.client("api", "password-of-api")


@pytest.fixture
def auth(server: Server) -> Any:
    """Return a connection of the service auth."""
    return server.client("auth", "password-of-auth")


def test_only_who_has_a_name_and_its_password_gets_in(server: Server) -> None:
    with pytest.raises(redis.AuthenticationError):
        server.client().ping()
    for name, password in (("default", ""), ("default", "x"), ("api", "password-of-auth"), ("nobody", "x")):
        with pytest.raises(redis.AuthenticationError):
            server.client(name, password).ping()
    assert server.client("api", "password-of-api").ping()


def test_without_tls_it_says_nothing(server: Server) -> None:
    for first in (b"PING\r\n", b"AUTH api password-of-api\r\nPING\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
            plain.sendall(first)
            with contextlib.suppress(ConnectionResetError):
                assert b"PONG" not in plain.recv(1024)


def test_its_certificate_is_of_the_ca_for_its_name(server: Server) -> None:
    def version(context: ssl.SSLContext, name: str) -> str | None:
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=name) as wrapped,
        ):
            return wrapped.version()

    trusting = ssl.create_default_context(cafile=server.ca)
    assert version(trusting, "redis.infrastructure.svc") == "TLSv1.3"
    for context, name in ((trusting, "another.svc"), (ssl.create_default_context(), "redis.infrastructure.svc")):
        with pytest.raises(ssl.SSLCertVerificationError):
            version(context, name)


def test_a_service_does_with_its_keys_what_it_likes(api: Any) -> None:
    assert api.set("api:post:1", "text", ex=60)
    assert api.get("api:post:1") == b"text"
    assert 0 < api.ttl("api:post:1") <= 60
    with api.pipeline(transaction=True) as both:
        assert both.incr("api:count").expire("api:count", 60).execute() == [1, True]
    assert api.zadd("api:set", {"a": 1.0}) == 1
    assert api.zrangebyscore("api:set", 0, 2, withscores=True) == [(b"a", 1.0)]
    # Limiters count in scripts, sent once and then called by their sum.
    script = api.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert [script(keys=["api:limit"], args=[5]) for _ in range(2)] == [5, 10]
    assert api.script_exists(script.sha) == [True]
    assert api.delete("api:post:1", "api:count", "api:set", "api:limit") == 4
    assert api.client_setname("api")


def test_a_service_reads_what_it_may_and_writes_none_of_it(api: Any, auth: Any) -> None:
    auth.zadd("auth:revoked-sessions", {"sid": 7.0})
    auth.set("auth:limit", "1")
    assert api.zrangebyscore("auth:revoked-sessions", 0, 10) == [b"sid"]
    with pytest.raises(NoPermissionError):
        api.zadd("auth:revoked-sessions", {"other": 8.0})
    with pytest.raises(NoPermissionError):
        api.delete("auth:revoked-sessions")
    with pytest.raises(NoPermissionError):
        api.get("auth:limit")
    with pytest.raises(NoPermissionError):
        auth.get("api:post:1")
    with pytest.raises(redis.ResponseError, match=r"(?i)can't access|no permission"):
        api.eval("return redis.call('get', 'auth:limit')", 0)


def test_the_limiter_of_auth_needs_no_more_than_that(server: Server) -> None:
    async def count() -> list[Any]:
        pool: Any = redis.asyncio.ConnectionPool(
            connection_class=redis.asyncio.SSLConnection,
            host="127.0.0.1",
            port=server.port,
            ssl_ca_certs=str(server.ca),
            username="auth",
            password="password-of-auth",
        )
        storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix="auth:limits", connection_pool=pool
        )
        limiter, rate = SlidingWindowCounterRateLimiter(storage), parse("2/minute")
        hits = [await limiter.hit(rate, "login", "somebody") for _ in range(3)]
        remaining = (await limiter.get_window_stats(rate, "login", "somebody")).remaining
        await limiter.clear(rate, "login", "somebody")
        again = await limiter.hit(rate, "login", "somebody")
        await pool.aclose()
        return [hits, remaining, again]

    assert asyncio.run(count()) == [[True, True, False], 0, True]


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "CONFIG GET *", "ACL LIST", "ACL WHOAMI",
        "MONITOR", "SHUTDOWN", "INFO", "CLIENT LIST", "CLIENT KILL TYPE normal", "SAVE", "BGREWRITEAOF",
        "REPLICAOF NO ONE", "MODULE LIST", "SCRIPT FLUSH", "FUNCTION FLUSH", "FUNCTION LIST", "SORT api:set",
        "SLOWLOG GET", "LATENCY LATEST", "SUBSCRIBE auth:news", "PUBLISH auth:news x", "SELECT 1", "SWAPDB 0 0",
    ],
)  # fmt: skip
def test_a_service_governs_nothing(api: Any, command: str) -> None:
    with pytest.raises(redis.ResponseError) as refusal:
        api.execute_command(*command.split())
    reason = "out of range" if command == "SELECT 1" else "permission"
    assert reason in str(refusal.value), "it was refused for another reason"


def test_the_monitor_sees_how_the_server_is_and_no_data(server: Server, auth: Any) -> None:
    auth.set("auth:secret", "x")
    monitor = server.client("_monitor", "password-of-the-monitor")
    assert monitor.ping()
    assert monitor.info("memory")["maxmemory_policy"] == "volatile-lru"
    # The exporter asks for both; slow commands would show what services store, so none is kept.
    assert monitor.latency_latest() == []
    assert (monitor.slowlog_len(), monitor.slowlog_get()) == (0, [])
    for command in ("GET auth:secret", "KEYS *", "CONFIG GET *", "SLOWLOG RESET", "LATENCY RESET"):
        with pytest.raises(NoPermissionError):
            monitor.execute_command(*command.split())


def test_the_probe_tells_an_error_from_an_answer(server: Server, render: Any, tmp_path: Path) -> None:
    containers = pick(documents(render), "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
    [container] = [one for one in containers if one["name"] == "redis"]
    shell, option, script = container["livenessProbe"]["exec"]["command"]
    password = tmp_path / "password"
    place = "/run/secrets/redis/monitor_password"
    assert place in script
    script = script.replace(place, str(password)).replace("redis-cli", f"redis-cli -p {server.port}")
    assert "/run/secrets/redis/ca.crt" in script
    script = script.replace("/run/secrets/redis/ca.crt", str(server.ca))
    for content, code in (("password-of-the-monitor", 0), ("wrong", 1)):
        password.write_text(content, encoding="utf-8")
        assert subprocess.run([shell, option, script], capture_output=True, check=False).returncode == code


def test_data_outlives_the_process(render: Any, tmp_path: Path) -> None:
    rendered = documents(render)
    with running(tmp_path, rendered) as first:
        first.client("api", "password-of-api").set("api:kept", "for ever")
    with running(tmp_path, rendered) as second:
        assert second.client("api", "password-of-api").get("api:kept") == b"for ever"


def test_full_it_forgets_what_may_be_forgotten_and_nothing_else(render: Any, tmp_path: Path) -> None:
    with running(tmp_path, documents(render, redis_maxmemory="4Mi")) as small:
        auth = small.client("auth", "password-of-auth")
        auth.zadd("auth:revoked-sessions", {"sid": 7.0})
        for number in range(600):
            auth.set(f"auth:{number}", "x" * 10_000, ex=600)
        assert auth.zscore("auth:revoked-sessions", "sid") == 7.0
        assert 0 < auth.exists(*[f"auth:{number}" for number in range(600)]) < 600
        with pytest.raises(redis.OutOfMemoryError):
            for number in range(600):
                auth.set(f"auth:for-ever:{number}", "x" * 10_000)
