"""The way into the platform's object store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster_client import Client
from object_store import store

ENDPOINT = "minio.infrastructure.svc:9000"


@pytest.fixture
def take(client: Client, ca: str) -> Callable[..., list[str]]:
    """Return a function that takes steps at the platform's MinIO with a key."""

    def steps(key: dict[str, str] | None, *steps: list[str]) -> list[str]:
        answers: list[str] = client.call(store, endpoint=ENDPOINT, ca=ca, key=key, steps=list(steps))
        return answers

    return steps
