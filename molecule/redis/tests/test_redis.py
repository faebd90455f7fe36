"""Redis as the services and strangers meet it. What damages something does it to a second installation, in a namespace
of its own. What a user may do, command by command: tests/rendering/test_redis.py."""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import server_certificate
from cluster_client import Client, Pods
from confinement import confined, confinements
from controller import Run, apply_role
from exposition import metrics
from leaks import leaked

NAMESPACE, OWN = "infrastructure", "molecule-redis-own"
NAME = "app.kubernetes.io/name=redis"
HOST = "redis.infrastructure.svc"
REFUSED, UNKNOWN = "NoPermissionError", "AuthenticationError"

pytestmark = [pytest.mark.explain(NAMESPACE), pytest.mark.explain(OWN)]


def ask(host: str, ca: str, user: str | None, password: str | None, commands: list[list[str]]) -> list[str]:
    """In the cluster: give commands as a user, with TLS if there is a CA to believe; for each the answer as text, or
    the kind of the refusal."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_data": ca} if ca else {}
    client: Any = redis.Redis(
        host, 6379, username=user, password=password, retry=once, socket_timeout=20, decode_responses=True, **tls
    )
    answers = []
    for command in commands:
        try:
            answers.append(str(client.execute_command(*command)))
        except redis.RedisError as error:
            answers.append(type(error).__name__)
    client.close()
    return answers


def shake_hands(host: str, ca: str, name: str) -> str:
    """In the cluster: the version of TLS that is agreed on with who is called by that name, or the kind of the
    refusal; without a CA those of the system are believed."""
    import socket
    import ssl

    context = ssl.create_default_context(cadata=ca or None)
    try:
        with (
            socket.create_connection((host, 6379), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as wrapped,
        ):
            return str(wrapped.version())
    except OSError as error:
        return type(error).__name__


@pytest.fixture(scope="session")
def users(definitions: dict[str, Any]) -> list[str]:
    """Return the services that have keys in Redis."""
    found = sorted(name for name, definition in definitions.items() if "redis" in definition)
    assert {"auth", "api", "image"} <= set(found)
    return found


@pytest.fixture
def give(client: Client, ca: str, secrets: dict[str, Any]) -> Any:
    """Return a function that gives commands to the platform's Redis as a service."""

    def commands(service: str, *commands: list[str]) -> list[str]:
        password = secrets["redis_passwords"][service]
        answers: list[str] = client.call(
            ask, host=HOST, ca=ca, user=service, password=password, commands=list(commands)
        )
        return answers

    return commands


# --- the platform's


def test_a_service_keeps_reads_and_removes_its_keys(give: Any, users: list[str]) -> None:
    for service in users:
        key = f"{service}:molecule-{random.token_hex(8)}"
        steps = [["SET", key, "kept", "EX", "60"], ["GET", key], ["DEL", key], ["GET", key]]
        assert give(service, *steps) == ["True", "kept", "1", "None"], service


def test_a_service_touches_no_key_of_another(give: Any, users: list[str]) -> None:
    for service in users:
        for other in users:
            if other != service:
                steps = [["GET", f"{other}:molecule"], ["SET", f"{other}:molecule", "x"], ["DEL", f"{other}:molecule"]]
                assert give(service, *steps) == [REFUSED] * 3, f"{service} on keys of {other}"
        assert give(service, ["SET", "molecule", "of nobody"]) == [REFUSED]


def test_keys_to_read_can_be_read_and_not_written(give: Any, definitions: dict[str, Any], users: list[str]) -> None:
    readers = {service: definitions[service]["redis"].get("reads", []) for service in users}
    assert any(readers.values())
    for service, keys in readers.items():
        for key in keys:
            steps = [["TYPE", key], ["ZADD", key, "1", "molecule"], ["DEL", key]]
            answers = give(service, *steps)
            assert answers[0] in ("zset", "none"), f"{service} reads {key}"
            assert answers[1:] == [REFUSED] * 2, f"{service} writes {key}"


def test_without_tls_it_says_nothing(client: Client, secrets: dict[str, Any]) -> None:
    password = secrets["redis_passwords"]["api"]
    answers = client.call(ask, host=HOST, ca="", user="api", password=password, commands=[["PING"], ["GET", "api:x"]])
    assert answers == ["ConnectionError"] * 2


def test_its_certificate_is_of_the_platforms_ca_for_its_names(client: Client, ca: str) -> None:
    for name in (HOST, f"{HOST}.cluster.local"):
        assert client.call(shake_hands, host=HOST, ca=ca, name=name) == "TLSv1.3"
    assert client.call(shake_hands, host=HOST, ca=ca, name="minio.infrastructure.svc") == "SSLCertVerificationError"
    assert client.call(shake_hands, host=HOST, ca="", name=HOST) == "SSLCertVerificationError"


def test_who_has_no_name_or_a_wrong_password_is_refused(client: Client, ca: str, secrets: dict[str, Any]) -> None:
    ping = [["PING"]]
    passwords = secrets["redis_passwords"]
    assert client.call(ask, host=HOST, ca=ca, user=None, password=None, commands=ping) == [UNKNOWN]
    strangers = [("default", ""), ("default", passwords["api"]), ("api", passwords["auth"]), ("nobody", "x" * 32)]
    for user, password in strangers:
        assert client.call(ask, host=HOST, ca=ca, user=user, password=password, commands=ping) == [UNKNOWN], user
    assert client.call(ask, host=HOST, ca=ca, user="api", password=passwords["api"], commands=ping) == ["True"]


def test_a_service_governs_nothing(give: Any) -> None:
    commands = [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "CONFIG GET *",
        "ACL LIST",
        "CLIENT LIST",
        "INFO",
        "SHUTDOWN",
    ]
    assert give("api", *[command.split() for command in commands]) == [REFUSED] * len(commands)


def test_the_monitor_asks_how_it_is_and_sees_no_data(client: Client, ca: str, secrets: dict[str, Any]) -> None:
    steps = [["PING"], ["INFO", "persistence"], ["GET", "auth:molecule"], ["CONFIG", "GET", "*"]]
    password = secrets["redis_monitor_password"]
    answers = client.call(ask, host=HOST, ca=ca, user="_monitor", password=password, commands=steps)
    assert answers[0] == "True"
    assert "'aof_enabled': 1" in answers[1]
    assert answers[2:] == [REFUSED] * 2


def test_the_exporter_tells_how_it_is_and_asks_nothing_that_it_may_not(client: Client, pods: Pods) -> None:
    address = pods.core.read_namespaced_pod("redis-0", NAMESPACE).status.pod_ip

    def rejected(samples: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in samples.items() if "rejected_calls_total" in name}

    seen, again = (client.call(metrics, address=address, port=9121) for _ in range(2))
    assert seen["redis_up"] == 1
    assert seen["redis_aof_enabled"] == 1
    assert seen["redis_memory_max_bytes"] == 128 * 1024**2
    assert again["redis_commands_processed_total"] > seen["redis_commands_processed_total"]
    assert rejected(again) == rejected(seen) != {}


def test_it_is_confined(pods: Pods, hosts: dict[str, Any]) -> None:
    found = confinements(pods, hosts, NAMESPACE, NAME)
    assert found == dict.fromkeys(found, confined(10004))


def test_no_secret_is_in_its_specification(cluster: Any, secrets: dict[str, Any]) -> None:
    shown = str(cluster.items(f"/api/v1/namespaces/{NAMESPACE}/pods"))
    shown += str(cluster.items(f"/api/v1/namespaces/{NAMESPACE}/configmaps"))
    assert leaked(secrets, shown) == []


# --- one of the test's own


class Installation:
    """A second Redis with the role's own defaults, and users of the test."""

    host = f"redis.{OWN}.svc"

    def __init__(self, state: Path, image: str) -> None:
        self.users: list[dict[str, Any]] = [
            {"name": name, "password": random.token_hex(16)} for name in ("writer", "other")
        ]
        self.variables = {
            "redis_kubeconfig": str(state / "kubeconfig"),
            "redis_image": image,
            "redis_namespace": OWN,
            "redis_storage_size": "1Gi",
            "redis_monitor_password": random.token_hex(16),
        }
        self.renew()

    def renew(self) -> None:
        """Take a new CA and a certificate of it."""
        made = server_certificate("redis", self.host)
        self.ca = str(made["ca_certificate"])
        self.variables |= {
            "redis_ca_certificate": self.ca,
            "redis_certificate": made["redis_certificate"],
            "redis_certificate_key": made["redis_key"],
        }

    def apply(self, *arguments: str, **variables: Any) -> Run:
        return apply_role("redis", *arguments, variables={**self.variables, "redis_users": self.users, **variables})

    def give(self, client: Client, user: dict[str, Any], *commands: list[str]) -> list[str]:
        name, password = user["name"], user["password"]
        answers: list[str] = client.call(
            ask, host=self.host, ca=self.ca, user=name, password=password, commands=list(commands)
        )
        return answers


@pytest.fixture(scope="module")
def own(pods: Pods, state: Path) -> Iterator[Installation]:
    """Return a second installation, made from nothing."""
    image = pods.core.read_namespaced_pod("redis-0", NAMESPACE).spec.containers[0].image
    with pods.namespace(OWN):
        installation = Installation(state, image)
        check = installation.apply("--check")
        assert check.code == 0, check.output
        assert pods.core.list_namespaced_service(OWN).items == []
        run = installation.apply()
        assert run.code == 0, run.output
        hidden = {user["name"]: user["password"] for user in installation.users}
        hidden |= {name: installation.variables[f"redis_{name}"] for name in ("monitor_password", "certificate_key")}
        assert leaked(hidden, run.output) == []
        yield installation


def test_a_second_run_changes_nothing(own: Installation) -> None:
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_data_outlives_the_pod(own: Installation, client: Client, pods: Pods) -> None:
    [user, _] = own.users
    assert own.give(client, user, ["SET", "writer:kept", "for ever"]) == ["True"]
    # What it has accepted it writes down within a second.
    time.sleep(2)
    killed = pods.core.read_namespaced_pod("redis-0", OWN).metadata.uid
    pods.core.delete_namespaced_pod("redis-0", OWN, grace_period_seconds=0)
    pods.wait_ready(OWN, "redis-0", other_than=killed)
    assert pods.eventually(lambda: own.give(client, user, ["GET", "writer:kept"]), ["for ever"]) == ["for ever"]


def test_a_new_password_takes_the_place_of_the_old_one_and_an_undeclared_user_goes(
    own: Installation, client: Client, pods: Pods
) -> None:
    before = own.users
    own.users = [before[0] | {"password": random.token_hex(16)}]
    run = own.apply()
    assert run.code == 0, run.output
    assert run.changed > 0
    assert pods.eventually(lambda: own.give(client, own.users[0], ["GET", "writer:kept"]), ["for ever"]) == ["for ever"]
    for old in before:
        assert own.give(client, old, ["PING"]) == [UNKNOWN], old["name"]


def test_new_rights_reach_the_running_server(own: Installation, client: Client, pods: Pods) -> None:
    reader = {"name": "reader", "password": random.token_hex(16), "reads": ["writer:kept"]}
    own.users = [*own.users, reader]
    run = own.apply()
    assert run.code == 0, run.output
    steps = [["GET", "writer:kept"], ["SET", "writer:kept", "mine"], ["GET", "writer:other"]]
    wanted = ["for ever", REFUSED, REFUSED]
    assert pods.eventually(lambda: own.give(client, reader, *steps), wanted) == wanted


def test_a_new_certificate_reaches_the_running_server(own: Installation, client: Client, pods: Pods) -> None:
    old, [user, *_] = own.ca, own.users
    own.renew()
    run = own.apply()
    assert run.code == 0, run.output
    assert pods.eventually(lambda: own.give(client, user, ["GET", "writer:kept"]), ["for ever"]) == ["for ever"]
    assert client.call(shake_hands, host=own.host, ca=old, name=own.host) == "SSLCertVerificationError"


def test_a_limit_that_a_full_redis_would_break_is_refused_before_anything_changes(
    own: Installation, pods: Pods
) -> None:
    before = pods.core.read_namespaced_pod("redis-0", OWN).metadata.uid
    run = own.apply(redis_maxmemory="256Mi")
    assert run.code != 0
    assert "redis_resources.limits.memory: found 384Mi, wanted at least twice redis_maxmemory" in run.output
    assert pods.core.read_namespaced_pod("redis-0", OWN).metadata.uid == before


def test_uninstalled_with_its_data_nothing_is_left(own: Installation, pods: Pods) -> None:
    run = own.apply(applied_tasks="uninstall", redis_uninstall_data=True)
    assert run.code == 0, run.output
    assert pods.core.list_namespaced_pod(OWN, label_selector=NAME).items == []
    assert pods.core.list_namespaced_persistent_volume_claim(OWN).items == []
    assert pods.core.list_namespaced_secret(OWN).items == []
