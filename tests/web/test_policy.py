"""The content security policy as Chromium enforces it: what a hole in the page would let in, it keeps out."""

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import Site
from tests.web.support.browser import Watch

INLINE = """
const script = document.createElement('script')
try { script.textContent = 'window.broken = 1' } catch (error) { window.refused = error.name }
document.body.append(script)
"""
HANDLER = "document.body.setAttribute('onclick', 'window.broken = 1'); document.body.click()"
MARKUP = "try { document.body.innerHTML = '<b>x</b>'; window.broken = 1 } catch (error) { window.refused = error.name }"
OTHER_IMAGE = """
const image = new Image()
image.onload = () => { window.broken = 1 }
image.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=='
"""
ELSEWHERE = "fetch('https://elsewhere.invalid/').then(() => { window.broken = 1 }, () => { window.refused = 'fetch' })"
FRAME = "const frame = document.createElement('iframe'); frame.src = '/'; document.body.append(frame)"
FORM = "const form = document.createElement('form'); document.body.append(form); form.submit()"
STYLE = """
const style = document.createElement('style')
style.textContent = 'body { --broken: 1 }'
document.body.append(style)
if (getComputedStyle(document.body).getPropertyValue('--broken')) window.broken = 1
"""


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        pytest.param(INLINE, "TrustedScript|Trusted Type|script-src", id="inline script"),
        pytest.param(HANDLER, "TrustedScript|Trusted Type|script-src", id="inline handler"),
        pytest.param(MARKUP, "TrustedHTML|Trusted Type", id="markup from text"),
        pytest.param(OTHER_IMAGE, "img-src", id="image from elsewhere"),
        pytest.param(ELSEWHERE, "connect-src|Content Security Policy", id="data to elsewhere"),
        pytest.param(FRAME, "default-src|frame-src|frame-ancestors", id="frame"),
        pytest.param(FORM, "form-action", id="form"),
        pytest.param(STYLE, "style-src", id="inline style"),
    ],
)
def test_is_kept_out(page: Page, site: Site, watch: Watch, code: str, complaint: str) -> None:
    watch.expect(complaint)
    page.goto(site.url + "/sign-in")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    # By the debugger, which only the first step passes the policy with; all that follows is as injected code would be.
    page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": f"{{{code}}}"})
    page.wait_for_timeout(300)
    assert page.evaluate("window.broken") is None
    assert page.url == site.url + "/sign-in"


def test_the_page_cannot_be_framed(page: Page, site: Site) -> None:
    frame = f"<iframe src='{site.url}/sign-in'></iframe>"
    page.route("https://elsewhere.invalid/", lambda route: route.fulfill(body=frame, content_type="text/html"))

    # Without the policy a frame of this address works, so it is the policy that keeps it out.
    page.route(site.url + "/sign-in", lambda route: route.fulfill(body="<h1>Sign in</h1>", content_type="text/html"))
    page.goto("https://elsewhere.invalid/")
    expect(page.frame_locator("iframe").get_by_role("heading", name="Sign in")).to_be_visible()
    page.unroute(site.url + "/sign-in")
    page.goto("https://elsewhere.invalid/")
    page.wait_for_timeout(500)
    assert page.frames[1].url.startswith("chrome-error:")


def test_the_context_is_a_secure_one(page: Page, site: Site) -> None:
    page.goto(site.url)
    assert page.evaluate("window.isSecureContext") is True
    assert page.evaluate("window.trustedTypes !== undefined") is True
