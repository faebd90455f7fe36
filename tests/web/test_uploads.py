"""Uploads while they are under way: how far they are, how to stop them, and the two ways to begin one."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from slipway_testing.images import encoded, jpeg

from tests.web.conftest import Account, Site
from tests.web.support.browser import eventually, inspect
from tests.web.support.steps import choose_files, sign_in

MEBIBYTE = 1024 * 1024


@pytest.fixture
def images(page: Page, site: Site, member: Account) -> Page:
    sign_in(page, site.url, member.username, member.password, "/images")
    expect(page.get_by_role("heading", name="Images")).to_be_visible()
    return page


@contextmanager
def slow(page: Page, bytes_per_second: int) -> Iterator[None]:
    """A phone line for what is sent."""
    session = page.context.new_cdp_session(page)
    conditions = {"offline": False, "latency": 5, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", conditions)
    try:
        yield
    finally:
        session.send("Network.emulateNetworkConditions", conditions | {"uploadThroughput": -1})
        session.detach()


def test_progress_is_seen_and_ends_with_the_image(images: Page, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.write_bytes(jpeg(2 * MEBIBYTE))
    with slow(images, MEBIBYTE // 2):
        choose_files(images, file)
        bar = images.get_by_role("progressbar", name="Upload of large.jpg")
        eventually(images, "(document.querySelector('progress')?.position ?? 0) > 0.2")
        first = float(bar.get_attribute("value") or 0)
        inspect(images, "upload-progress")
        eventually(images, f"(document.querySelector('progress')?.position ?? 0) > {first + 0.1}")
        expect(images.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(1)
    expect(bar).to_have_count(0)


def test_cancelled(images: Page, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.write_bytes(jpeg(4 * MEBIBYTE))
    with slow(images, MEBIBYTE // 2):
        choose_files(images, file)
        eventually(images, "(document.querySelector('progress')?.position ?? 0) > 0.05")
        images.get_by_role("button", name="Cancel large.jpg").click()
        expect(images.get_by_role("progressbar")).to_have_count(0)
        expect(images.get_by_label("Choose images")).to_be_focused()
    images.reload()
    expect(images.get_by_text("No images yet.")).to_be_visible()


def test_leaving_the_view_stops_them(images: Page, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    file.write_bytes(jpeg(4 * MEBIBYTE))
    with slow(images, MEBIBYTE // 2), images.expect_event("requestfailed") as failed:
        choose_files(images, file)
        eventually(images, "(document.querySelector('progress')?.position ?? 0) > 0.05")
        images.get_by_role("link", name="Posts").click()
    assert failed.value.url.endswith("/api/v1/images")
    assert failed.value.failure == "net::ERR_ABORTED"


def test_dropped(images: Page) -> None:
    picture = base64.b64encode(encoded("PNG")).decode()
    transfer = images.evaluate_handle(
        """(picture) => {
          const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0))
          const transfer = new DataTransfer()
          transfer.items.add(new File([bytes], 'dropped.png', { type: 'image/png' }))
          return transfer
        }""",
        picture,
    )
    target = images.locator(".drop")
    target.dispatch_event("dragover", {"dataTransfer": transfer})
    expect(target).to_have_class("drop over")
    target.dispatch_event("drop", {"dataTransfer": transfer})
    expect(target).to_have_class("drop")
    expect(images.get_by_role("status").filter(has_text="dropped.png uploaded.")).to_be_visible()
    expect(images.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(1)
