"""Redis is killed while the platform is used: no read fails, people sign in, and afterwards it is used again."""

from __future__ import annotations

import secrets as random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster_client import Client, Pods
from exposition import metrics
from https_client import ask

NAMESPACE, POD = "infrastructure", "redis-0"
RUNNING = "app.kubernetes.io/component=service,app.kubernetes.io/name={}"
POSTS, LOGIN, REGISTER = "/api/v1/posts?limit=20", "/api/v1/auth/login", "/api/v1/auth/register"
READERS, PAUSE_SECONDS, READS_BEFORE = 4, 0.25, 40

pytestmark = [pytest.mark.explain(name) for name in (NAMESPACE, "api", "auth")]


class Readers:
    """Read the public list at a steady rate, each from one node after the other, and note what failed."""

    def __init__(self, read: Callable[[int], str]) -> None:
        self.read = read
        self.done, self.failed = 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(READERS)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            number += 1
            problem = self.read(number)
            self.done += 1
            if problem:
                self.failed.append(problem)


@pytest.fixture
def site(inventory: Any, domain: str, trust: ssl.SSLContext) -> Callable[..., Any]:
    """Return a function that asks the site, at a node by its number."""
    addresses = [inventory.address(host) for host in inventory.hosts()]

    def answer(path: str, number: int = 0, **what: Any) -> Any:
        return ask(addresses[number % len(addresses)], domain, path, trust, **what)

    return answer


@pytest.fixture
def reading(site: Callable[..., Any]) -> Iterator[Readers]:
    """Return the readers, when they have begun."""

    def read(number: int) -> str:
        try:
            answer = site(POSTS, number)
            return "" if answer.status == 200 and "items" in answer.json() else f"{answer.status} {answer.body[:200]}"
        except Exception as error:  # whatever it is, somebody's read has failed
            return repr(error)

    with Readers(read) as readers:
        yield readers


@pytest.fixture
def total(client: Client, pods: Pods, definitions: dict[str, Any]) -> Callable[..., float]:
    """Return a function that gives the sum of a counter over the pods of a service and its labels."""

    def added(service: str, name: str, label: str = "") -> float:
        one, found = definitions[service], 0.0
        for pod in pods.names(one["namespace"], RUNNING.format(service)):
            address = pods.core.read_namespaced_pod(pod, one["namespace"]).status.pod_ip
            samples = client.call(metrics, address=address, port=one["port"])
            found += sum(value for key, value in samples.items() if key.split("{")[0] == name and label in key)
        return found

    return added


def test_no_read_fails_and_people_sign_in_while_redis_is_away(
    reading: Readers, site: Callable[..., Any], total: Callable[..., float], pods: Pods
) -> None:
    account = {"username": f"molecule-{random.token_hex(6)}", "password": random.token_hex(16)}
    assert site(REGISTER, content=account).status == 201
    assert pods.eventually(lambda: reading.done >= READS_BEFORE, True)
    reads = "api_cache_reads_total"
    away, skipped = total("api", reads, 'result="away"'), total("auth", "auth_rate_limits_skipped_total")

    killed = pods.core.read_namespaced_pod(POD, NAMESPACE).metadata.uid
    pods.core.delete_namespaced_pod(POD, NAMESPACE, grace_period_seconds=0)
    signed_in: list[int] = []
    while not signed_in or not ready(pods, killed):
        signed_in.append(site(LOGIN, content=account | {"refresh_token_in": "body"}).status)
        time.sleep(1)
    assert set(signed_in) == {200}
    assert total("api", reads, 'result="away"') > away, "no read went without Redis, so this has shown nothing"
    assert total("auth", "auth_rate_limits_skipped_total") > skipped, "nobody signed in without Redis"

    hits = total("api", reads, 'result="hit"')
    assert pods.eventually(lambda: total("api", reads, 'result="hit"') > hits, True), "the cache is not used again"
    assert reading.failed == [], f"{len(reading.failed)} of {reading.done} reads failed"


def ready(pods: Pods, killed: str) -> bool:
    """Whether another pod has taken the place of the killed one."""
    for pod in pods.core.list_namespaced_pod(NAMESPACE, field_selector=f"metadata.name={POD}").items:
        if pod.metadata.uid != killed:
            return any((c.type, c.status) == ("Ready", "True") for c in pod.status.conditions or [])
    return False
