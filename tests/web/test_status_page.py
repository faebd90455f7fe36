"""The platform's status page as Chromium and axe see it, on a small phone and on a large screen, in both themes."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import status_server
from platform_status import Status
from playwright.sync_api import Page, expect

from tests.unit.test_status_page import ALERT, status
from tests.web.support.browser import DESKTOP, PHONE, inspect

LONG = "a-name-that-nobody-would-choose-and-that-has-no-place-to-break-" * 3


def broken() -> Status:
    """Return a platform with as much to tell as there can be."""
    one = status(arriving=False, told=False)
    alert = replace(ALERT, name=LONG, summary=LONG, place=LONG, runbook=f"docs/runbooks/{LONG}", quiet="silenced")
    return replace(
        one,
        alerts=replace(one.alerts, rows=(ALERT, replace(ALERT, severity="warning"), alert)),
        nodes=replace(one.nodes, rows=(*one.nodes.rows, replace(one.nodes.rows[0], name=LONG, missing=LONG))),
        workloads=replace(one.workloads, rows=(*one.workloads.rows, replace(one.workloads.rows[0], name=LONG))),
        budgets=replace(one.budgets, problem=LONG),
    )


@pytest.fixture
def address(page: Page, tmp_path: Path) -> Iterator[str]:
    """Return the address of a page, to somebody who has given the password."""
    (tmp_path / "password").write_text(hashlib.sha256(b"password").hexdigest(), encoding="ascii")
    gatherer = status_server.Gatherer(broken)
    gatherer.once()
    answers = status_server.pages("slipway.test", gatherer, status_server.Door(tmp_path / "password"))
    page.set_extra_http_headers({"Authorization": "Basic " + base64.b64encode(b"status:password").decode()})
    with status_server.Server(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_can_be_read(page: Page, address: str, size: dict[str, int]) -> None:
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    page.goto(address)
    expect(page.get_by_role("heading", name="Status of slipway.test")).to_be_visible()
    expect(page.get_by_role("table", name="The hosts of the cluster")).to_be_visible()
    expect(page.get_by_role("row", name="agent-1")).to_contain_text("ready")
    # Its style is one that its policy lets in.
    assert page.evaluate("getComputedStyle(document.querySelector('caption')).textAlign") == "left"
    inspect(page, "status-page")
