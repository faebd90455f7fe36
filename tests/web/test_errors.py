"""Everything that can go wrong in front of a user: a sentence that says what happened, and a way on."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect
from slipway_testing.images import encoded, jpeg
from slipway_testing.outages import Wire

from tests.web.conftest import Account, Site
from tests.web.support.browser import Watch, expect_alert, focused, inspect
from tests.web.support.steps import choose_files, open_view, sign_in, write_post

NewSite = Callable[..., Any]


def sign_up(page: Page, url: str, username: str, password: str) -> None:
    page.goto(url + "/sign-up")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign up").click()


def described(page: Page, label: str) -> str:
    """The error that a screen reader reads with the field, which has to have the focus."""
    field = page.get_by_label(label, exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    ids = (field.get_attribute("aria-describedby") or "").split()
    return str(page.locator(f"[id='{ids[-1]}']").inner_text())


class TestSigningUp:
    def test_a_taken_name(self, page: Page, site: Site, member: Account, watch: Watch) -> None:
        watch.expect("status of 409")
        sign_up(page, site.url, member.username, "a password to remember")
        expect(page.get_by_text("This username is taken.")).to_be_visible()
        assert described(page, "Username") == "This username is taken. Please choose another one."
        inspect(page, "sign-up-taken")

    def test_a_common_password(self, page: Page, site: Site, watch: Watch) -> None:
        watch.expect("status of 422")
        sign_up(page, site.url, "somebody-new", "password1234")
        expect(page.get_by_text("among the first that others would try")).to_be_visible()
        assert described(page, "Password").startswith("This password is among the first")
        inspect(page, "sign-up-common")

    @pytest.mark.parametrize(
        ("username", "password", "label", "sentence"),
        [
            ("", "long enough", "Username", "Please choose a username."),
            ("ab", "long enough", "Username", "A username has 3 to 32 characters."),
            ("a b c", "long enough", "Username", "A username has letters"),
            ("ada.l", "short", "Password", "A password has at least 8 characters."),
        ],
    )
    def test_what_the_page_itself_knows(
        self, page: Page, site: Site, username: str, password: str, label: str, sentence: str
    ) -> None:
        sign_up(page, site.url, username, password)
        expect(page.get_by_text(sentence)).to_be_visible()
        assert described(page, label).startswith(sentence)


class TestSigningIn:
    def test_a_wrong_password(self, page: Page, site: Site, member: Account, watch: Watch) -> None:
        watch.expect("status of 401")
        page.goto(site.url + "/sign-in")
        page.get_by_label("Username").fill(member.username)
        page.get_by_label("Password", exact=True).fill("not the password")
        page.get_by_role("button", name="Sign in").click()
        expect_alert(page, "The username or the password is wrong.")
        inspect(page, "sign-in-wrong")
        # What was typed is still there, to be put right.
        expect(page.get_by_label("Username")).to_have_value(member.username)
        page.get_by_label("Password", exact=True).fill(member.password)
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="Account")).to_be_visible()

    def test_too_often(self, page: Page, new_site: NewSite, watch: Watch) -> None:
        watch.expect("status of 401", "status of 429")
        with new_site(auth={"limit_login_user": "2/minute"}) as site:
            member = site.new_account()
            page.goto(site.url + "/sign-in")
            page.get_by_label("Username").fill(member.username)
            page.get_by_label("Password", exact=True).fill("not the password")
            for status in (401, 401, 429):
                with page.expect_response("**/login") as answer:
                    page.get_by_role("button", name="Sign in", exact=True).click()
                assert answer.value.status == status
                expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
            expect_alert(page, re.compile(r"^That was too often\. Try again in \d+ seconds\.$"))
            inspect(page, "sign-in-too-often")

    def test_nothing_typed(self, page: Page, site: Site) -> None:
        page.goto(site.url + "/sign-in")
        page.get_by_role("button", name="Sign in").click()
        assert described(page, "Username") == "Please enter your username."


class TestPosts:
    def test_nothing_written(self, page: Page, site: Site, member: Account) -> None:
        sign_in(page, site.url, member.username, member.password)
        write_post(page, "A title", "  ")
        assert described(page, "Text") == "Please write something."

    def test_deleted_elsewhere(self, page: Page, site: Site, member: Account, watch: Watch) -> None:
        watch.expect("status of 404")
        sign_in(page, site.url, member.username, member.password)
        write_post(page, "Soon gone", "Text")
        page.get_by_role("button", name="Delete Soon gone").click()
        site.query("api_db", "DELETE FROM posts WHERE title = 'Soon gone'")
        page.get_by_role("button", name="Delete post").click()
        expect_alert(page, "This post does not exist any more.")
        page.get_by_role("button", name="Keep it").click()
        expect(page.get_by_role("dialog")).to_have_count(0)

    def test_an_address_of_no_post(self, page: Page, site: Site, watch: Watch) -> None:
        watch.expect("status of 404")
        page.goto(site.url + "/posts/00000000-0000-4000-8000-000000000000")
        expect_alert(page, "This post does not exist any more.")

    def test_an_address_of_nothing(self, page: Page, site: Site) -> None:
        page.goto(site.url + "/no/such/view")
        expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
        inspect(page, "nothing-here")


class TestUploads:
    @pytest.fixture
    def images(self, page: Page, site: Site, member: Account) -> Page:
        sign_in(page, site.url, member.username, member.password, "/images")
        expect(page.get_by_role("heading", name="Images")).to_be_visible()
        return page

    @pytest.mark.parametrize(
        ("name", "content", "status", "sentence"),
        [
            ("large.jpg", lambda: jpeg(13 * 1024 * 1024), 413, "This file is too large."),
            ("notes.jpg", lambda: b"These are notes.\n" * 100, 415, "This is no image that can be taken"),
            ("half.png", lambda: encoded("PNG")[:1000], 422, "This image is damaged and cannot be read."),
            ("nothing.gif", lambda: b"", 422, "This file is empty."),
        ],
    )
    def test_refused(
        self,
        images: Page,
        watch: Watch,
        tmp_path: Path,
        name: str,
        content: Callable[[], bytes],
        status: int,
        sentence: str,
    ) -> None:
        watch.expect(f"status of {status}")
        file = tmp_path / name
        file.write_bytes(content())
        choose_files(images, file)
        expect_alert(images, sentence)
        inspect(images, f"upload-{name.split('.')[0]}")
        images.get_by_role("button", name=f"Dismiss {name}").click()
        expect(images.get_by_text(name)).to_have_count(0)
        expect(images.get_by_label("Choose images")).to_be_focused()
        expect(images.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(0)

    def test_one_of_several(self, images: Page, watch: Watch, tmp_path: Path) -> None:
        """The good ones arrive, the bad one says why it did not."""
        watch.expect("status of 415")
        files = [tmp_path / f"{name}.png" for name in ("one", "two", "three", "bad")]
        for width, file in enumerate(files, 50):
            file.write_bytes(encoded("PNG", width=width) if file.stem != "bad" else b"no image")
        choose_files(images, *files)
        expect(images.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(3)
        uploads = images.get_by_role("list", name="Uploads")
        expect(uploads.get_by_role("listitem")).to_have_count(1)
        expect_alert(images, "This is no image that can be taken")
        # It will not be one at the next attempt either.
        expect(uploads.get_by_role("button", name="Try again")).to_have_count(0)

    def test_no_room_left(self, page: Page, new_site: NewSite, watch: Watch, tmp_path: Path) -> None:
        watch.expect("status of 403")
        files = [tmp_path / "first.png", tmp_path / "second.png"]
        for width, file in enumerate(files, 60):
            file.write_bytes(encoded("PNG", width=width))
        with new_site(image={"quota_images": 1}) as site:
            member = site.new_account()
            sign_in(page, site.url, member.username, member.password, "/images")
            choose_files(page, files[0])
            expect(page.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(1)
            choose_files(page, files[1])
            expect_alert(page, "An account may keep 1 images. Delete some first.")
            inspect(page, "upload-no-room")
            # Once there is room, the same file is taken.
            page.get_by_role("list", name="Your images").get_by_role("button").click()
            page.get_by_role("button", name="Delete", exact=True).click()
            page.get_by_role("button", name="Delete image").click()
            expect(page.get_by_text("No images yet.")).to_be_visible()
            page.get_by_role("button", name="Try again").click()
            expect(page.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(1)


class TestPassword:
    def test_a_wrong_current_one(self, page: Page, site: Site, member: Account, watch: Watch) -> None:
        watch.expect("status of 401")
        sign_in(page, site.url, member.username, member.password)
        open_view(page, "Account")
        page.get_by_label("Current password").fill("not the password")
        page.get_by_label("New password").fill("battery staple horse")
        page.get_by_role("button", name="Change password").click()
        expect(page.get_by_text("This is not your current password.")).to_be_visible()
        assert described(page, "Current password") == "This is not your current password."
        inspect(page, "account-wrong")
        # A wrong password does not end the session.
        expect(page.get_by_role("link", name="Account")).to_be_visible()

    def test_a_common_new_one(self, page: Page, site: Site, member: Account, watch: Watch) -> None:
        watch.expect("status of 422")
        sign_in(page, site.url, member.username, member.password)
        open_view(page, "Account")
        page.get_by_label("Current password").fill(member.password)
        page.get_by_label("New password").fill("password1234")
        page.get_by_role("button", name="Change password").click()
        expect(page.get_by_text("among the first that others would try")).to_be_visible()
        assert described(page, "New password").startswith("This password is among the first")


class TestServerAway:
    def test_the_gateway(self, page: Page, new_site: NewSite, watch: Watch) -> None:
        """What the ingress answers then is no problem document; what was written is not lost."""
        watch.expect("status of 502")
        with ExitStack() as stack:
            wires: list[Wire] = []

            def through(gateway: str) -> str:
                address = urlsplit(gateway)
                wires.append(Wire(str(address.hostname), int(address.port or 0)))
                stack.callback(wires[0].close)
                return wires[0].url

            site = stack.enter_context(new_site(through=through))
            member = site.new_account()
            sign_in(page, site.url, member.username, member.password)
            wires[0].set("refusing")
            write_post(page, "Patience", "Written while nobody listened")
            # The list of posts may say the same, when the gateway went away before it had come.
            form = page.get_by_role("form", name="New post")
            expect_alert(form, "A part of the server does not answer at the moment.")
            inspect(page, "gateway-away")
            expect(page.get_by_label("Text")).to_have_value("Written while nobody listened")
            wires[0].set("open")
            page.get_by_role("button", name="Publish").click()
            expect(page.get_by_role("article").filter(has_text="Patience")).to_be_visible()

            wires[0].set("refusing")
            page.reload()
            expect_alert(page, "A part of the server does not answer at the moment.")
            open_view_without_title(page, "Images")
            expect(page.get_by_role("heading", name="Not signed in yet")).to_be_visible()
            inspect(page, "gateway-away-resuming")
            wires[0].set("open")
            # Still the same session: being away for a moment has ended nothing.
            page.get_by_role("button", name="Try again").click()
            expect(page.get_by_role("heading", name="Images")).to_be_visible()

    def test_auth_behind_it(self, page: Page, new_site: NewSite, watch: Watch) -> None:
        """Told by the gateway, with the time after which to try again; reading posts goes on."""
        watch.expect("status of 503")
        with new_site(api={"auth_url": "http://127.0.0.1:9"}) as site:
            page.goto(site.url + "/sign-in")
            page.get_by_label("Username").fill("anybody")
            page.get_by_label("Password", exact=True).fill("any password")
            page.get_by_role("button", name="Sign in").click()
            expect_alert(page, re.compile(r"does not answer at the moment\. Try again in (a second|\d+ seconds)\."))
            expect(page.get_by_text("Reference:")).to_be_visible()
            inspect(page, "auth-away")
            open_view(page, "Posts")
            expect(
                page.get_by_role("list").get_by_role("article").first.or_(page.get_by_text("No posts"))
            ).to_be_visible()

    def test_counting_down(self, page: Page, site: Site, watch: Watch) -> None:
        """A list that the server is too busy for can be tried again, but not before its time."""
        watch.expect("status of 503")
        body = '{"type": "urn:slipway:problem:busy", "title": "Busy", "status": 503}'
        headers = {"Content-Type": "application/problem+json", "Retry-After": "7"}
        page.route("**/api/v1/posts?*", lambda route: route.fulfill(status=503, headers=headers, body=body))
        page.goto(site.url)
        expect_alert(page, "The server is busy at the moment.")
        button = page.get_by_role("button", name="Try again in")
        expect(button).to_have_text(re.compile("in [67] s"))
        expect(button).to_have_attribute("aria-disabled", "true")
        inspect(page, "busy")
        page.unroute("**/api/v1/posts?*")
        button.focus()
        page.get_by_role("button", name="Try again", exact=True).wait_for()
        assert focused(page)["name"] == "Try again"
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_count(0)


class TestRollout:
    def test_a_page_whose_files_come_from_an_older_replica(self, page: Page, site: Site, watch: Watch) -> None:
        watch.expect("status of 404")
        missing = []

        def twice(route: Route) -> None:
            missing.append(route.request.url)
            if len(missing) <= 2:
                route.fulfill(status=404, body="")
            else:
                route.continue_()

        page.route("**/assets/*.js", twice)
        page.goto(site.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Posts")
        assert len(missing) == 3
        assert page.evaluate("sessionStorage.length") == 0

    def test_gives_up_when_they_never_come(self, page: Page, site: Site, watch: Watch) -> None:
        watch.expect("status of 404")
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url) if "/assets/" in request.url else None)
        page.add_init_script(
            "sessionStorage.getItem('slipway.reloads') ?? sessionStorage.setItem('slipway.reloads', '9')"
        )
        page.route("**/assets/*.js", lambda route: route.fulfill(status=404, body=""))
        page.clock.install()
        page.goto(site.url)
        for _ in range(3):
            page.clock.run_for(20_000)
            page.wait_for_timeout(300)
        assert len([url for url in requests if url.endswith(".js")]) == 2


class TestOffline:
    def test_is_said_and_passes(
        self, page: Page, context: BrowserContext, site: Site, member: Account, watch: Watch
    ) -> None:
        watch.expect("ERR_INTERNET_DISCONNECTED")
        sign_in(page, site.url, member.username, member.password)
        context.set_offline(True)
        expect(page.get_by_role("status").filter(has_text="You are offline.")).to_be_visible()
        write_post(page, "Later", "Written under way")
        expect_alert(page, "You are offline. Connect to a network and try again.")
        inspect(page, "offline")
        context.set_offline(False)
        expect(page.get_by_text("You are offline. What you see")).to_have_count(0)
        page.get_by_role("button", name="Publish").click()
        expect(page.get_by_role("article").filter(has_text="Written under way")).to_have_count(1)

    def test_an_upload_that_breaks_off_can_be_tried_again(
        self, page: Page, context: BrowserContext, site: Site, member: Account, watch: Watch, tmp_path: Path
    ) -> None:
        watch.expect("ERR_INTERNET_DISCONNECTED")
        file = tmp_path / "boat.png"
        file.write_bytes(encoded("PNG"))
        sign_in(page, site.url, member.username, member.password, "/images")
        context.set_offline(True)
        choose_files(page, file)
        expect_alert(page, "You are offline.")
        context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("list", name="Your images").get_by_role("img")).to_have_count(1)


def open_view_without_title(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()
