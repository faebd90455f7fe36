"""Releases: files that an upstream project publishes, pinned by URL and SHA-256 in `release.lock.yml`.

`release.sources.yml` says where a project publishes its checksums; `refresh` writes the lock from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

if not __package__:  # the command line and the tests
    from artifact_recipe import ArtifactError, digest_of
else:  # packed by Ansible
    from .artifact_recipe import ArtifactError, digest_of  # type: ignore[import-not-found,no-redef,unused-ignore]

ATTEMPTS = 4
TIMEOUT = 30
CHUNK = 1 << 20
# Answers that a second attempt may change.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclasses.dataclass(frozen=True)
class ReleaseFile:
    file: str
    url: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Release:
    name: str
    version: str
    files: tuple[ReleaseFile, ...]

    @property
    def key(self) -> str:
        """Names a place in the store, as the key of a recipe does."""
        return str(digest_of({file.file: file.sha256 for file in self.files}))


def load_lock(path: Path) -> dict[str, Release]:
    """Read the lock: `name: {version, files: {<file>: {url, sha256}}}`."""
    releases = {}
    for name, entry in _mapping(path).items():
        try:
            files = tuple(ReleaseFile(file, item["url"], item["sha256"]) for file, item in entry["files"].items())
            release = Release(name, str(entry["version"]), files)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: entry '{name}' lacks {error}, run the refresh command") from error
        for item in files:
            if not re.fullmatch(r"[0-9a-f]{64}", str(item.sha256)):
                raise ArtifactError(f"{path}: {name}/{item.file}: sha256 must be 64 hex digits, found {item.sha256!r}")
        releases[name] = release
    return releases


def fetch(item: ReleaseFile, target: Path, pause: Callable[[float], None] = time.sleep) -> None:
    """Download one file to `target`; nothing is left there unless its SHA-256 is the one wanted."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            found = _download(item, target)
        except _TransientError as error:
            target.unlink(missing_ok=True)
            if attempt == ATTEMPTS:
                raise ArtifactError(f"{item.url}: {error}, gave up after {ATTEMPTS} attempts") from error
            pause(2.0**attempt)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        else:
            if found == item.sha256:
                return
            target.unlink()
            raise ArtifactError(f"{item.url}: sha256 is {found}, wanted {item.sha256}: not the file that was pinned")


class _TransientError(Exception):
    """Worth another attempt."""


def _download(item: ReleaseFile, target: Path) -> str:
    """Write the body to `target` and return its SHA-256."""
    try:
        with _open(item.url) as response, target.open("wb") as out:
            length = response.headers.get("Content-Length")
            sha256, size = hashlib.sha256(), 0
            while chunk := response.read(CHUNK):
                if size == 0 and _is_page(response.headers.get("Content-Type", ""), chunk):
                    raise ArtifactError(f"{item.url}: answered with an HTML page, not with {item.file}")
                sha256.update(chunk)
                out.write(chunk)
                size += len(chunk)
            if length and size != int(length):
                raise _TransientError(f"truncated, {size} of {length} bytes")
            return sha256.hexdigest()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in TRANSIENT:
            raise _TransientError(f"HTTP {error.code}") from error
        raise ArtifactError(f"{item.url}: HTTP {error.code} {error.reason}") from error
    except http.client.IncompleteRead as error:
        raise _TransientError("truncated") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _TransientError(str(getattr(error, "reason", "") or error or type(error).__name__)) from error


def _open(url: str) -> http.client.HTTPResponse:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise ArtifactError(f"{url}: must begin with https:// or http://")
    request = urllib.request.Request(url, headers={"User-Agent": "slipway"})  # noqa: S310  scheme is checked above
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    return response


def _is_page(content_type: str, start: bytes) -> bool:
    return content_type.startswith("text/html") or start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def refresh(name: str, sources: Path, lock: Path, versions: Mapping[str, Any]) -> Release:
    """Pin a release anew: write the lock from what upstream publishes for the version in versions.yml."""
    known = _mapping(sources)
    if name not in known:
        raise ArtifactError(f"{sources}: no source named '{name}', known: {', '.join(sorted(known)) or 'none'}")
    source = known[name]
    if source["version"] not in versions:
        raise ArtifactError(f"{sources}: {name}: version '{source['version']}' is not in versions.yml")
    version = str(versions[source["version"]])
    base = source["url"].format(version=urllib.parse.quote(version, safe=""))
    sums_url = f"{base}/{source['checksums']}"
    try:
        with _open(sums_url) as response:
            text = response.read(CHUNK).decode("utf-8", "replace")
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise ArtifactError(f"{sums_url}: cannot be read: {error}") from error
    sums = {file.lstrip("*"): digest for digest, file in re.findall(r"^([0-9a-f]{64})\s+(\S+)$", text, re.MULTILINE)}
    files = []
    for file in source["files"]:
        if file not in sums:
            raise ArtifactError(f"{sums_url}: lists no checksum of {file}")
        files.append(ReleaseFile(file, f"{base}/{file}", sums[file]))
    release = Release(name, version, tuple(files))
    _write_lock(lock, {**load_lock(lock), name: release})
    return release


def _write_lock(path: Path, releases: Mapping[str, Release]) -> None:
    head = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith(("#", "---")))
    body = {
        name: {
            "version": release.version,
            "files": {item.file: {"url": item.url, "sha256": item.sha256} for item in release.files},
        }
        for name, release in sorted(releases.items())
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(head + yaml.safe_dump(body, sort_keys=False, width=200), encoding="utf-8")
    fresh.replace(path)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path}: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ArtifactError(f"{path}: must be a mapping of names")
    return data
