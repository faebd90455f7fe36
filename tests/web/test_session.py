"""Being signed in: across reloads, tabs and time; and where nothing of it may be found."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.web.conftest import Account, Site
from tests.web.support.browser import Watch, inspect, watched
from tests.web.support.steps import open_view, sign_in, write_post

# The shortest that auth takes: the page renews a token that has less than this left, so it renews for every call.
SHORT = {"token_lifetime_seconds": 30}
REVOKED = "SELECT revoked_at IS NOT NULL FROM sessions JOIN users ON users.id = user_id WHERE username = $1"
REVOKE = (
    "UPDATE sessions SET revoked_at = now(), revoked_because = 'logout' FROM users"
    " WHERE users.id = user_id AND username = $1"
)


def test_a_reload_keeps_the_session_and_no_script_can_read_it(
    page: Page, context: BrowserContext, site: Site, member: Account
) -> None:
    sign_in(page, site.url, member.username, member.password)
    page.reload()
    expect(page.get_by_role("form", name="New post")).to_be_visible()
    cookie = next(cookie for cookie in context.cookies(site.url + "/api/v1/auth/refresh"))
    assert cookie["name"] == "slipway_refresh"
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
    assert cookie["path"] == "/api/v1/auth"
    assert page.evaluate("document.cookie") == ""
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert stored == '[{"slipway.signed-in":"1"},{}]'
    assert page.evaluate("indexedDB.databases().then(found => found.length)") == 0


def test_tokens_are_renewed_without_anybody_noticing(page: Page, new_site: Callable[..., Any], watch: Watch) -> None:
    renewals: list[str] = []
    page.on("request", lambda request: renewals.append(request.url) if request.url.endswith("/refresh") else None)
    with new_site(auth=SHORT) as site:
        member = site.new_account()
        sign_in(page, site.url, member.username, member.password)
        for number in range(3):
            write_post(page, f"Post {number}", "Text")
            expect(page.get_by_role("heading", name=f"Post {number}")).to_be_visible()
        open_view(page, "Images")
        expect(page.get_by_text("No images yet.")).to_be_visible()
    assert len(renewals) >= 4


def test_tabs_that_renew_at_the_same_time_do_not_end_the_session(
    page: Page, context: BrowserContext, new_site: Callable[..., Any], watch: Watch
) -> None:
    """Each refresh token works once and using one twice ends the session: the tabs have to take turns."""
    with new_site(auth=SHORT) as site:
        member = site.new_account()
        sign_in(page, site.url, member.username, member.password)
        tabs = [page]
        for _ in range(3):
            with watched(context, watch) as tab:
                tabs.append(tab)
        for tab in tabs:
            tab.goto(site.url + "/images", wait_until="commit")
        for tab in tabs:
            expect(tab.get_by_text("No images yet.")).to_be_visible()
        for tab in tabs:
            tab.evaluate("void location.reload()")
        for tab in tabs:
            expect(tab.get_by_text("No images yet.")).to_be_visible()
        sessions = site.query("auth_db", REVOKED, member.username)
        assert [tuple(row) for row in sessions] == [(False,)]


def test_signing_out_in_one_tab_signs_out_in_all(
    page: Page, context: BrowserContext, site: Site, member: Account, watch: Watch
) -> None:
    sign_in(page, site.url, member.username, member.password)
    with watched(context, watch) as other:
        other.goto(site.url + "/images")
        expect(other.get_by_role("heading", name="Images")).to_be_visible()
        open_view(page, "Account")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("status").filter(has_text="You are signed out.")).to_be_visible()
        expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
        # Nobody ended it behind the user's back, so nobody says so.
        expect(other.get_by_text("Your session has ended.")).to_have_count(0)
        assert context.cookies(site.url + "/api/v1/auth/refresh") == []
        page.reload()
        expect(page.get_by_role("link", name="Sign in").first).to_be_visible()
    assert [tuple(row) for row in site.query("auth_db", REVOKED, member.username)] == [(True,)]


def test_a_session_that_was_ended_elsewhere(page: Page, site: Site, member: Account, watch: Watch) -> None:
    """Said once, with the form beside it; afterwards the user is where they wanted to go."""
    watch.expect("status of 401")
    sign_in(page, site.url, member.username, member.password)
    site.query("auth_db", REVOKE, member.username)
    page.goto(site.url + "/account")
    expect(page.get_by_text("Your session has ended. Please sign in again.")).to_be_visible()
    inspect(page, "session-ended")
    page.get_by_label("Username").fill(member.username)
    page.get_by_label("Password", exact=True).fill(member.password)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"You are signed in as {member.username}.")).to_be_visible()
    expect(page).to_have_url(re.compile("/account$"))


def test_a_session_that_ends_while_somebody_writes(page: Page, new_site: Callable[..., Any], watch: Watch) -> None:
    """What was written is there again after signing in, for its author alone."""
    watch.expect("status of 401")
    with new_site(auth=SHORT) as site:
        member, somebody = site.new_account(), site.new_account()
        sign_in(page, site.url, member.username, member.password)
        site.query("auth_db", REVOKE, member.username)
        write_post(page, "A long story", "It took an hour.")
        expect(page.get_by_role("alert").filter(has_text="Your session has ended.")).to_be_visible()
        inspect(page, "session-ended-posts")
        for who, text in ((somebody, ""), (member, "It took an hour.")):
            page.get_by_role("main").get_by_role("link", name="Sign in").click()
            page.get_by_label("Username").fill(who.username)
            page.get_by_label("Password", exact=True).fill(who.password)
            page.keyboard.press("Enter")
            expect(page.get_by_label("Text")).to_have_value(text)
            if who is somebody:
                open_view(page, "Account")
                page.get_by_role("button", name="Sign out").click()
                expect(page.get_by_role("heading", name="Posts", exact=True)).to_be_visible()
        page.get_by_role("button", name="Publish").click()
        expect(page.get_by_role("article").filter(has_text="It took an hour.")).to_be_visible()


def test_another_user_in_another_tab(
    page: Page, context: BrowserContext, site: Site, member: Account, watch: Watch
) -> None:
    """One browser has one session: both tabs show whose it is."""
    somebody = site.new_account()
    sign_in(page, site.url, member.username, member.password)
    open_view(page, "Account")
    with watched(context, watch) as other:
        sign_in(other, site.url, somebody.username, somebody.password)
        expect(page.get_by_text(f"You are signed in as {somebody.username}.")).to_be_visible()
