"""Calls of the image service as the gateway makes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from slipway_testing.platform import Platform, User


@contextmanager
def image_client(platform: Platform, **changes: Any) -> Iterator[httpx2.Client]:
    """Of an image service of its own, with these settings changed."""
    headers = platform.service_headers("api", "image")
    with (
        platform.image(**changes) as server,
        httpx2.Client(base_url=server.url, headers=headers, timeout=30) as client,
    ):
        yield client


def upload(
    client: httpx2.Client, user: User, picture: bytes, name: str = "a.jpg", kind: str = "image/jpeg"
) -> httpx2.Response:
    return client.post("/upload", files={"file": (name, picture, kind)}, headers=user.headers)


def stored(client: httpx2.Client, user: User, picture: bytes) -> dict[str, Any]:
    """What the service says about a picture that it took."""
    answer = upload(client, user, picture)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def metric(client: httpx2.Client, line: str) -> float:
    """The value of a metric with its labels; 0 for one that is not there."""
    for found in client.get("/metrics").text.splitlines():
        name, _, value = found.rpartition(" ")
        if name == line:
            return float(value)
    return 0.0
