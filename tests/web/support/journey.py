"""The whole path of a user, with the keyboard alone, on a small phone's screen."""

import re
import secrets
from pathlib import Path

from playwright.sync_api import Page, expect
from slipway_testing.images import jpeg

from tests.web.support.browser import eventually, fill_by_keyboard, focused, inspect, tab_to

NEW_PASSWORD = "battery staple horse"


def walk(page: Page, url: str, folder: Path) -> None:
    """From sign-up to the thumbnail and on to signing in anew. What it makes, it removes; the account stays."""
    picture = folder / "boat.jpg"
    picture.write_bytes(jpeg(width=1600, height=1200))
    username = f"ada-{secrets.token_hex(4)}"

    page.goto(url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Posts")
    page.keyboard.press("Tab")
    assert focused(page)["name"] == "Skip to content"
    inspect(page, "posts-signed-out")
    tab_to(page, "Sign up")
    page.keyboard.press("Enter")

    # A new view: its heading has the focus, so Tab goes on from there.
    expect(page.get_by_role("heading", name="Sign up")).to_be_focused()
    expect(page).to_have_title("Sign up · slipway")
    inspect(page, "sign-up")
    fill_by_keyboard(page, "Username", username)
    fill_by_keyboard(page, "Password", "a password to remember")
    page.keyboard.press("Enter")

    expect(page.get_by_role("status").filter(has_text=f"Welcome, {username}.")).to_be_visible()
    expect(page.get_by_role("heading", name="Posts", exact=True)).to_be_focused()
    fill_by_keyboard(page, "Title", "First post")
    fill_by_keyboard(page, "Text", "Hello.\nA second line, and <b>no markup</b>.")
    tab_to(page, "Publish", role="button")
    page.keyboard.press("Enter")
    post = page.get_by_role("article").filter(has_text="no markup").filter(has_text=username)
    expect(post).to_contain_text("A second line, and <b>no markup</b>.")
    inspect(page, "posts")

    tab_to(page, "Delete First post", role="button")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Delete this post?")).to_be_visible()
    inspect(page, "post-delete")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert focused(page)["name"] == "Delete First post"
    page.keyboard.press("Enter")
    tab_to(page, "Delete post", role="button")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Post deleted.")).to_be_visible()
    expect(post).to_have_count(0)
    expect(page.get_by_role("heading", name="Posts", exact=True)).to_be_focused()

    page.keyboard.press("Control+Home")
    page.reload()
    tab_to(page, "Images", role="link")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Images")).to_be_focused()
    inspect(page, "images-empty")
    with page.expect_file_chooser() as chooser:
        tab_to(page, "Choose images")
        page.keyboard.press("Space")
    assert chooser.value.is_multiple()
    chooser.value.set_files(picture)
    expect(page.get_by_role("status").filter(has_text="boat.jpg uploaded.")).to_be_visible()
    thumbnail = page.get_by_role("list", name="Your images").get_by_role("img")
    expect(thumbnail).to_have_count(1)
    expect(thumbnail).to_have_attribute("src", re.compile(f"^blob:{url}/"))
    eventually(page, "document.querySelector('.gallery img').naturalWidth > 0")
    assert page.evaluate("document.querySelector('.gallery img').naturalWidth") == 480
    expect(page.get_by_text("in use")).to_be_visible()
    inspect(page, "images")

    tab_to(page, thumbnail.get_attribute("alt") or "", role="button")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Image")
    expect(viewer.get_by_text(re.compile("1600 . 1200"))).to_be_visible()
    expect(viewer.get_by_role("img")).to_be_visible()
    inspect(page, "image")
    with page.expect_download() as download:
        tab_to(page, "Download original", role="button")
        page.keyboard.press("Enter")
    assert download.value.path().read_bytes() == picture.read_bytes()
    tab_to(page, "Delete", role="button")
    page.keyboard.press("Enter")
    tab_to(page, "Delete image", role="button")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Image deleted.")).to_be_visible()
    expect(thumbnail).to_have_count(0)
    expect(page.get_by_role("heading", name="Images")).to_be_focused()

    page.reload()
    tab_to(page, "Account", role="link")
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"You are signed in as {username}.")).to_be_visible()
    inspect(page, "account")
    fill_by_keyboard(page, "Current password", "a password to remember")
    fill_by_keyboard(page, "New password", NEW_PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Password changed.")).to_be_visible()
    tab_to(page, "Sign out", role="button")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="You are signed out.")).to_be_visible()

    page.reload()
    tab_to(page, "Sign in", role="link")
    page.keyboard.press("Enter")
    inspect(page, "sign-in")
    fill_by_keyboard(page, "Username", username)
    fill_by_keyboard(page, "Password", NEW_PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Account")).to_be_visible()
