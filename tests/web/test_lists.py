"""Lists that are longer than a page, on a phone and on a desk; and what screen readers make of them."""

import re

import httpx2
import pytest
from playwright.sync_api import Page, expect
from slipway_testing.images import encoded
from slipway_testing.platform import Platform

from tests.web.conftest import Account, Site
from tests.web.support.browser import DESKTOP, PHONE, eventually, focused, inspect
from tests.web.support.steps import open_view, sign_in

WORDS = "The tide turns at noon, and whoever wants to leave the harbour has an hour. "


def headers_of(site: Site, member: Account) -> dict[str, str]:
    credentials = {"username": member.username, "password": member.password}
    answer = httpx2.post(f"{site.auth}/login", json=credentials).raise_for_status()
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desk"])
def test_posts_by_the_page(page: Page, site: Site, member: Account, platform: Platform, size: dict[str, int]) -> None:
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    with httpx2.Client(base_url=platform.url("api"), headers=headers_of(site, member)) as client:
        for number in range(1, 13):
            post = {"title": f"Log entry {number}", "content": WORDS * (number % 4 + 1)}
            client.post("/api/v1/posts", json=post).raise_for_status()
    sign_in(page, site.url, member.username, member.password)
    page.get_by_role("button", name="Mine").click()
    expect(page.get_by_role("button", name="Mine")).to_have_attribute("aria-pressed", "true")
    articles = page.get_by_role("article")
    expect(articles).to_have_count(10)
    expect(articles.first).to_contain_text("Log entry 12")
    inspect(page, "posts-many")
    page.get_by_role("button", name="Load more").click()
    expect(articles).to_have_count(12)
    # Who asked for more goes on with the first of it.
    expect(page.get_by_role("link", name="Log entry 2", exact=True)).to_be_focused()
    expect(page.get_by_role("button", name="Load more")).to_have_count(0)

    page.get_by_role("link", name="Log entry 1", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Post|Log entry 1"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Log entry 1")
    expect(page).to_have_title("Log entry 1 · slipway")
    inspect(page, "post")
    page.go_back()
    expect(page.get_by_role("heading", name="Posts", exact=True)).to_be_focused()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desk"])
def test_images_by_the_page(page: Page, site: Site, member: Account, platform: Platform, size: dict[str, int]) -> None:
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    with httpx2.Client(base_url=platform.url("api"), headers=headers_of(site, member), timeout=30) as client:
        for number in range(25):
            file = {"file": (f"{number}.png", encoded("PNG", 200 + number, 150), "image/png")}
            client.post("/api/v1/images", files=file).raise_for_status()
    sign_in(page, site.url, member.username, member.password)
    open_view(page, "Images")
    pictures = page.get_by_role("list", name="Your images").get_by_role("img")
    expect(pictures).to_have_count(24)
    eventually(page, "[...document.querySelectorAll('.gallery img')].every(img => img.naturalWidth > 0)")
    inspect(page, "images-many")
    page.get_by_role("button", name="Load more").click()
    expect(pictures).to_have_count(25)
    assert focused(page)["name"].endswith("200 × 150")  # noqa: RUF001 - a multiplication sign, as the page has it


def test_no_image_is_fetched_by_an_address_that_everybody_could_use(page: Page, site: Site, member: Account) -> None:
    """Whatever the browser loads for itself comes from this origin and needs no token; pictures come by fetch."""
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(f"{request.resource_type} {request.url}"))
    sign_in(page, site.url, member.username, member.password)
    open_view(page, "Images")
    expect(page.get_by_text("No images yet.")).to_be_visible()
    kinds = {"document", "script", "stylesheet", "fetch", "other"}
    assert {entry.split()[0] for entry in loaded} <= kinds, loaded
    assert {entry.split()[1] for entry in loaded if not entry.split()[1].startswith(site.url + "/")} == set()
