"""What users do on the page."""

from pathlib import Path

from playwright.sync_api import Page, expect


def sign_in(page: Page, url: str, username: str, password: str, path: str = "/sign-in") -> None:
    """Ends when the page shows that it happened."""
    page.goto(url + path)
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Account")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Sign in")


def open_view(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def choose_files(page: Page, *files: Path) -> None:
    """As the file dialog does it; it would not offer files of other types, but users can make it."""
    page.get_by_label("Choose images").set_input_files(list(files))


def write_post(page: Page, title: str, text: str) -> None:
    form = page.get_by_role("form", name="New post")
    form.get_by_label("Title").fill(title)
    form.get_by_label("Text").fill(text)
    form.get_by_role("button", name="Publish").click()
