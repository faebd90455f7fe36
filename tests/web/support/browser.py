"""A real Chromium, and what is asked of every page in it: nothing wrong in the console, nothing axe finds serious."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
AXE = ROOT / "services" / "web" / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = ROOT / ".cache" / "test-results" / "screenshots"
PHONE = {"width": 360, "height": 800}
DESKTOP = {"width": 1280, "height": 800}
# Of WCAG 2.2, both levels, and what axe calls best practice.
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@dataclass
class Watch:
    """What a page complained about. A test names the complaints that it provokes, and each of them has to come."""

    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def expect(self, *patterns: str) -> None:
        """Regular expressions: `status of 409` for an answer that the browser mentions in its console."""
        self.expected += patterns

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def verify(self) -> None:
        unexpected = [text for text in self.complaints if not any(re.search(p, text) for p in self.expected)]
        assert not unexpected, "the page complained:\n" + "\n".join(unexpected)
        silent = [p for p in self.expected if not any(re.search(p, text) for text in self.complaints)]
        assert not silent, f"the test wanted these and they did not come: {silent}"


@contextmanager
def running_browser(host: str, address: str) -> Iterator[Browser]:
    """Debian's Chromium, for which `host` is at `address`. As root, as tests in containers are, it has no sandbox."""
    arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {host} {address}"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield chromium
        chromium.close()


@contextmanager
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """Somebody's small phone, with no past. Its certificates are not what is tested here."""
    context = browser.new_context(
        viewport={"width": PHONE["width"], "height": PHONE["height"]},
        ignore_https_errors=True,
        reduced_motion="reduce",
        locale="en-GB",
    )
    yield context
    context.close()


@contextmanager
def watched(context: BrowserContext, watch: Watch) -> Iterator[Page]:
    page = context.new_page()
    watch.follow(page)
    page.set_default_timeout(15_000)
    yield page


def inspect(page: Page, name: str) -> None:
    """In both themes: a screenshot, nothing serious for axe, and nothing wider than the window."""
    _load_axe(page)
    for theme in THEMES:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        width = (page.viewport_size or PHONE)["width"]
        page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{theme}.png", full_page=True)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        bad = [_violation(entry) for entry in found["violations"] if entry["impact"] in ("serious", "critical")]
        assert not bad, f"{name}, {theme}:\n" + "\n".join(bad)
        # Without rules that passed axe would not have looked at all.
        assert len(found["passes"]) > 5
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, f"{name}: {overflow} pixels wider than the window"


def eventually(page: Page, expression: str, seconds: float = 15) -> None:
    """Asks until the expression is true. Playwright's own waiting evaluates text in the page, against its policy."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not true: {expression}"
        page.wait_for_timeout(50)


def _violation(entry: dict[str, Any]) -> str:
    nodes = "; ".join(f"{node['target']}: {node['failureSummary']}" for node in entry["nodes"])
    return f"{entry['impact']} {entry['id']}: {entry['help']}: {nodes}"


def _load_axe(page: Page) -> None:
    """By the debugger: the page's own policy would rightly keep it out."""
    if page.evaluate("typeof window.axe") == "undefined":
        session = page.context.new_cdp_session(page)
        done = session.send("Runtime.evaluate", {"expression": AXE.read_text() + "\n;typeof axe.run"})
        assert done["result"].get("value") == "function", json.dumps(done)[:500]
        session.detach()


def tab_to(page: Page, name: str, *, role: str | None = None, limit: int = 60) -> None:
    """Press Tab until something of this accessible name has the focus, and see that the focus can be seen."""
    seen = []
    for _ in range(limit):
        page.keyboard.press("Tab")
        found = focused(page)
        seen.append(f"{found['role']} {found['name']!r}")
        assert found["visible"], f"the focus cannot be seen on {seen[-1]}"
        if found["name"] == name and role in (None, found["role"]):
            return
    raise AssertionError(f"Tab never came to {role or ''} {name!r}; it went to {seen}")


def focused(page: Page) -> dict[str, Any]:
    """What has the focus: role and name as the accessibility tree has them, and whether its outline is drawn."""
    session = page.context.new_cdp_session(page)
    try:
        element = session.send("Runtime.evaluate", {"expression": "document.activeElement"})["result"]["objectId"]
        tree = session.send("Accessibility.getPartialAXTree", {"objectId": element, "fetchRelatives": False})
    finally:
        session.detach()
    node = tree["nodes"][0]
    visible = page.evaluate(
        """() => {
          const element = document.activeElement
          const marked = element.matches('.visually-hidden') ? element.parentElement.querySelector('.button') : element
          const style = getComputedStyle(marked)
          return element === document.body || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2)
        }"""
    )
    return {
        "role": node.get("role", {}).get("value", ""),
        "name": node.get("name", {}).get("value", ""),
        "visible": visible,
    }


def fill_by_keyboard(page: Page, label: str, text: str) -> None:
    tab_to(page, label)
    page.keyboard.type(text)


def expect_alert(place: Page | Locator, text: str | re.Pattern[str]) -> None:
    expect(place.get_by_role("alert").filter(has_text=text)).to_be_visible()
