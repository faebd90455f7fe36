"""The whole path of a user, with the keyboard alone, on a small phone's screen."""

from pathlib import Path

from playwright.sync_api import Page

from tests.web.conftest import Site
from tests.web.support.journey import walk


def test_from_sign_up_to_the_thumbnail_by_keyboard(page: Page, site: Site, tmp_path: Path) -> None:
    walk(page, site.url, tmp_path)
