"""Services, the page and a browser for a whole session; each test has a user and a browser profile of its own."""

import concurrent.futures
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from playwright.sync_api import Browser, BrowserContext, Page, expect
from slipway_testing.fixtures import *  # noqa: F403
from slipway_testing.platform import PASSWORD, Platform

from tests.web.support.browser import Watch, profile, running_browser, watched
from tests.web.support.servers import HOST, Nginx, built_page, open_directory, running_front, running_page

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
expect.set_options(timeout=15_000)

# Everybody here comes from one address.
UNLIMITED = {"limit_login_address": "", "limit_register_address": "", "limit_password_address": ""}


@dataclass(frozen=True)
class Account:
    username: str
    password: str = PASSWORD


class Site:
    """The address of a running page, and its users."""

    def __init__(self, url: str, auth: str, database: Callable[..., list[Any]]) -> None:
        self.url = url
        self.auth = auth
        self._database = database

    def new_account(self) -> Account:
        account = Account(f"web-{secrets.token_hex(6)}")
        credentials = {"username": account.username, "password": account.password}
        httpx2.post(f"{self.auth}/register", json=credentials).raise_for_status()
        return account

    def query(self, database: str, sql: str, *arguments: Any) -> list[Any]:
        """In a thread: Playwright's event loop is running in this one."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(self._database, database, sql, *arguments).result()


@pytest.fixture(scope="session")
def page_files() -> Iterator[Path]:
    # nginx works as another user, to whom pytest's own directories are closed.
    with open_directory() as directory:
        yield built_page(directory / "files")


@pytest.fixture(scope="session")
def page_server(page_files: Path) -> Iterator[Nginx]:
    with running_page(page_files) as nginx:
        yield nginx


@pytest.fixture(scope="session")
def new_site(platform: Platform, page_server: Nginx) -> Callable[..., Any]:
    """A function that starts a site of its own: other settings of services, or a gateway at another address."""

    @contextmanager
    def start(
        *,
        auth: dict[str, Any] | None = None,
        api: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        through: Callable[[str], str] = lambda gateway: gateway,
    ) -> Iterator[Site]:
        with ExitStack() as stack:
            auth_url = stack.enter_context(platform.auth(**(UNLIMITED | (auth or {})))).url
            image_url = stack.enter_context(platform.image(**image)).url if image else platform.url("image")
            urls = {"auth_url": auth_url, "image_url": image_url}
            gateway = stack.enter_context(platform.api(**(urls | (api or {}))))
            front = stack.enter_context(running_front(page_server.url, through(gateway.url)))
            yield Site(front.url, auth_url, platform.postgres.query)

    return start


@pytest.fixture(scope="session")
def site(new_site: Callable[..., Any]) -> Iterator[Site]:
    with new_site() as running:
        yield running


@pytest.fixture(scope="session")
def browser(site: Site) -> Iterator[Browser]:
    """After the services: their preparation needs an event loop of its own in this thread."""
    with running_browser(HOST, "127.0.0.1") as chromium:
        yield chromium


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.verify()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with profile(browser) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, watch: Watch) -> Iterator[Page]:
    """At the size of a small phone. What the page complains about fails the test."""
    with watched(context, watch) as page:
        yield page


@pytest.fixture
def member(site: Site) -> Account:
    """Somebody who has signed up."""
    return site.new_account()
