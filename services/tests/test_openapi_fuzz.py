"""Each service against its own OpenAPI document: whatever is sent, the answer is one that the document announces.

schemathesis makes the requests from the documents: every example, every keyword of every schema kept and broken once,
twenty further ones per operation, and chains of operations that belong together. The same in every run.
"""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import slipway_demo.app
import slipway_demo.service
from slipway_demo.settings import Settings as DemoSettings
from slipway_testing.fuzzing import fuzz
from slipway_testing.limits import UNLIMITED
from slipway_testing.openapi_checks import FAILS_ON_PURPOSE
from slipway_testing.platform import Platform
from slipway_testing.servers import LiveServer, live
from slipway_testing.settings import settings_of

pytestmark = pytest.mark.slow

# Paths below which another one takes an id: DELETE /posts/my is a DELETE of the post "my", which is no id (422).
SIBLING_OF_AN_ID = ("/api/v1/posts/my", "/api/v1/images/stats")


@contextlib.contextmanager
def unlimited_auth(platform: Platform) -> Iterator[LiveServer]:
    """Rate limits have tests of their own; here every request has to come through to what is behind them."""
    with platform.auth(**UNLIMITED) as server:
        yield server


def test_auth_with_a_token(platform: Platform, tmp_path: Path) -> None:
    leaving = platform.new_account("leaving").headers
    service = base64.b64encode(f"api:{platform.service_keys['api']}".encode()).decode()
    with unlimited_auth(platform) as server:
        fuzz(
            server.url,
            tmp_path,
            platform.new_account("fuzz").headers,
            # Whoever logs out has no token any more for what comes after it.
            headers_of={"/logout": leaving, "/service-tokens": {"Authorization": f"Basic {service}"}},
        )


def test_auth_as_nobody(platform: Platform, tmp_path: Path) -> None:
    with unlimited_auth(platform) as server:
        fuzz(server.url, tmp_path, {}, nobody=True)


def test_api_with_a_token(platform: Platform, tmp_path: Path) -> None:
    fuzz(platform.url("api"), tmp_path, platform.new_account("fuzz").headers, method_unchecked=SIBLING_OF_AN_ID)


def test_api_as_nobody(platform: Platform, tmp_path: Path) -> None:
    fuzz(platform.url("api"), tmp_path, {}, nobody=True, method_unchecked=SIBLING_OF_AN_ID)


@pytest.mark.parametrize("tokens", ["both", "of the service", "of the user", "none"])
def test_image(platform: Platform, tmp_path: Path, tokens: str) -> None:
    """It wants to know who asks and for whom; only with both tokens is anything served."""
    service = platform.service_headers("api", "image") if tokens in ("both", "of the service") else {}
    user = platform.new_user().headers if tokens in ("both", "of the user") else {}
    fuzz(platform.url("image"), tmp_path, user | service, nobody=tokens != "both")


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every delay that /api/slow allows, but without waiting for it."""
    monkeypatch.setattr(slipway_demo.service, "asyncio", SimpleNamespace(sleep=at_once))
    settings = settings_of(DemoSettings, shutdown_delay_seconds=0)
    with live(slipway_demo.app.create_app(settings)) as server:
        fuzz(server.url, tmp_path, {})


async def at_once(_: float) -> None:
    """Instead of sleeping."""


def test_only_flaky_fails_on_purpose(platform: Platform) -> None:
    """The mark that excuses a 500 is for one route, in one service."""
    marked = set()
    with live(slipway_demo.app.create_app(settings_of(DemoSettings, shutdown_delay_seconds=0))) as demo:
        for url in (demo.url, *(platform.url(service) for service in ("auth", "api", "image"))):
            for path, methods in httpx2.get(f"{url}/openapi.json").json()["paths"].items():
                marked |= {path for operation in methods.values() if FAILS_ON_PURPOSE in operation}
    assert marked == {"/api/flaky"}
