"""The release provider against a real HTTP server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from artifact_engine import Engine
from artifact_entries import Store
from artifact_recipe import ArtifactError, Catalog
from artifact_release import ReleaseFile, fetch, load_lock, refresh

ROOT = Path(__file__).parents[2]
BODY = b"\x7fELF" + bytes(range(256)) * 4096
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers each path in its own way and counts the requests."""

    requests: list[str]

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  the name is the base class'
        """Keep quiet."""

    def do_GET(self) -> None:
        self.requests.append(self.path)
        tries = self.requests.count(self.path)
        match self.path:
            case "/good" | "/wrong":
                self.answer(200, BODY if self.path == "/good" else b"x" + BODY[1:])
            case "/html":
                self.answer(200, b"<!DOCTYPE html><title>Sign in</title>", "text/html")
            case "/html-in-disguise":
                self.answer(200, b"\n<html><title>Sign in</title>")
            case "/truncated":
                self.answer(200, BODY, cut=1000)
            case "/truncated-once":
                self.answer(200, BODY, cut=1000 if tries == 1 else 0)
            case "/busy":
                self.answer(503, b"")
            case "/busy-twice":
                self.answer(503 if tries < 3 else 200, BODY if tries >= 3 else b"")
            case "/v1.0.0%2Bk3s1/sha256sum-amd64.txt":
                self.answer(200, f"{SHA256}  tool\n{'0' * 64}  other\n".encode())
            case _:
                self.answer(404, b"")

    def answer(self, code: int, body: bytes, kind: str = "application/octet-stream", cut: int = 0) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def url(server: ThreadingHTTPServer) -> Callable[[str], str]:
    return lambda path: f"http://127.0.0.1:{server.server_port}{path}"


@pytest.mark.parametrize(("path", "requests"), [("/good", 1), ("/busy-twice", 3), ("/truncated-once", 2)])
def test_download(tmp_path: Path, url: Callable[[str], str], path: str, requests: int) -> None:
    pauses: list[float] = []
    fetch(ReleaseFile("tool", url(path), SHA256), tmp_path / "tool", pauses.append)
    assert (tmp_path / "tool").read_bytes() == BODY
    assert len(Handler.requests) == requests
    assert pauses == [2.0, 4.0, 8.0][: requests - 1]


@pytest.mark.parametrize(
    ("path", "message", "requests"),
    [
        ("/wrong", f"wanted {SHA256}: not the file that was pinned", 1),
        ("/html", "answered with an HTML page, not with tool", 1),
        ("/html-in-disguise", "answered with an HTML page, not with tool", 1),
        ("/missing", "HTTP 404 Not Found", 1),
        ("/truncated", "gave up after 4 attempts", 4),
        ("/busy", "HTTP 503, gave up after 4 attempts", 4),
    ],
)
def test_bad_download(tmp_path: Path, url: Callable[[str], str], path: str, message: str, requests: int) -> None:
    with pytest.raises(ArtifactError) as caught:
        fetch(ReleaseFile("tool", url(path), SHA256), tmp_path / "tool", lambda seconds: None)
    assert str(caught.value).startswith(url(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert len(Handler.requests) == requests


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"Connection refused.*gave up after 4 attempts"):
        fetch(ReleaseFile("tool", "http://127.0.0.1:1/tool", SHA256), tmp_path / "tool", lambda seconds: None)


def test_only_web_addresses(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="must begin with https://"):
        fetch(ReleaseFile("tool", "file:///etc/passwd", SHA256), tmp_path / "tool")


class Project:
    def __init__(self, root: Path, url: Callable[[str], str]) -> None:
        self.root = root
        self.lock = root / "release.lock.yml"
        self.url = url
        self.versions: dict[str, str] = {"tool_version": "1.0.0"}
        (root / "images").mkdir()
        self.pin("/good", SHA256)

    def pin(self, path: str, sha256: str) -> None:
        entry = {"version": "1.0.0", "files": {"tool": {"url": self.url(path), "sha256": sha256}}}
        self.lock.write_text(yaml.safe_dump({"tool": entry}))

    def recipe(self, name: str) -> None:
        directory = self.root / "images" / name
        directory.mkdir()
        data = {"outputs": ["tool"], "lane": "light", "seconds": 1}
        (directory / "recipe.yml").write_text(yaml.safe_dump(data))
        (directory / "build.sh").write_text('echo built >"$OUT/tool"')

    def ensure(self, name: str, provider: str) -> Path:
        library = ROOT / "roles/artifacts/files"
        catalog = Catalog([self.root / "images"], self.root, library, self.versions, "go1.26.6")
        engine = Engine(Store(self.root / "cache"), catalog, self.lock)
        made, _ = engine.ensure([catalog.request(name)], provider)
        return made[name].path / "tool"


@pytest.fixture
def project(tmp_path: Path, url: Callable[[str], str]) -> Project:
    return Project(tmp_path, url)


def test_what_is_pinned_is_downloaded_once(project: Project) -> None:
    file = project.ensure("tool", "release")
    assert file.read_bytes() == BODY
    assert file.stat().st_mode & 0o111
    assert project.ensure("tool", "release") == file
    assert Handler.requests == ["/good"]


def test_a_wrong_sum_leaves_no_entry(project: Project) -> None:
    project.pin("/wrong", SHA256)
    with pytest.raises(ArtifactError, match="not the file that was pinned"):
        project.ensure("tool", "release")
    assert list((project.root / "cache/store").glob("[!.]*")) == []


def test_the_provider_chooses(project: Project) -> None:
    project.recipe("tool")
    assert project.ensure("tool", "build").read_text() == "built\n"
    assert project.ensure("tool", "release").read_bytes() == BODY


def test_what_is_not_pinned_is_built(project: Project) -> None:
    project.recipe("other")
    assert project.ensure("other", "release").read_text() == "built\n"


def test_neither_pinned_nor_a_recipe(project: Project) -> None:
    with pytest.raises(
        ArtifactError, match=r"not in the release lock and no recipe makes it here; pin it: .* refresh k3s"
    ):
        project.ensure("k3s", "release")


def test_a_lock_of_another_version_is_refused(project: Project) -> None:
    project.versions["tool_version"] = "2.0.0"
    with pytest.raises(ArtifactError, match=r"pins 1\.0\.0, versions\.yml wants 2\.0\.0; run .* refresh tool"):
        project.ensure("tool", "release")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"version": "1"}, "entry 'tool' lacks 'files', run the refresh command"),
        ({"version": "1", "files": {"tool": {"url": "https://example.com", "sha256": "0"}}}, "must be 64 hex digits"),
    ],
)
def test_a_mistake_in_the_lock_is_named(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    lock = tmp_path / "release.lock.yml"
    lock.write_text(yaml.safe_dump({"tool": entry}))
    with pytest.raises(ArtifactError, match=message):
        load_lock(lock)


def test_refresh_writes_what_upstream_publishes(tmp_path: Path, url: Callable[[str], str]) -> None:
    lock, sources = tmp_path / "release.lock.yml", tmp_path / "release.sources.yml"
    lock.write_text("---\n# Written by refresh.\n{}\n")
    source = {
        "version": "tool_version",
        "url": url("/{version}"),
        "checksums": "sha256sum-amd64.txt",
        "files": ["tool"],
    }
    sources.write_text(yaml.safe_dump({"tool": source}))
    refresh("tool", sources, lock, {"tool_version": "v1.0.0+k3s1"})
    assert lock.read_text().startswith("---\n# Written by refresh.\n")
    (item,) = load_lock(lock)["tool"].files
    assert item == ReleaseFile("tool", url("/v1.0.0%2Bk3s1/tool"), SHA256)
    with pytest.raises(ArtifactError, match="cannot be read: HTTP Error 404"):
        refresh("tool", sources, lock, {"tool_version": "v9"})


def test_the_projects_lock_pins_the_version_that_is_wanted() -> None:
    versions = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text())
    sources = yaml.safe_load((ROOT / "roles/artifacts/files/release.sources.yml").read_text())
    for name, release in load_lock(ROOT / "roles/artifacts/files/release.lock.yml").items():
        assert release.version == versions[sources[name]["version"]]
        assert [item.file for item in release.files] == sources[name]["files"]
