"""The store on disk.

store/<name>/<key>/          the artifact's files and manifest.json; appears whole or not at all
store/.tmp/, store/.locks/   work in progress, and the locks that keep two processes from doing the same work
logs/<name>-<key>.log        what the build printed
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # the command line and the tests
    from artifact_recipe import ArtifactError, Request, sha256_of
else:  # packed by Ansible
    from .artifact_recipe import ArtifactError, Request, sha256_of  # type: ignore[import-not-found,no-redef,unused-ignore]

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A finished entry of the store, or (with no sums) the place where one would be."""

    label: str
    key: str
    version: str
    path: Path
    sha256: Mapping[str, str]
    outputs: tuple[str, ...]

    def as_result(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "key": self.key,
            "version": self.version,
            "sha256": dict(self.sha256),
            "files": {name: str(self.path / name) for name in self.outputs},
        }


class Store:
    """Finished artifacts on disk."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.root = cache / "store"
        self.logs = cache / "logs"

    def path(self, name: str, key: str) -> Path:
        return self.root / name / key

    def find(self, request: Request, key: str) -> Artifact | None:
        """The artifact, if it is there and none of its files was removed or cut short."""
        path = self.path(request.name, key)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            outputs = manifest["outputs"]
            if any((path / name).stat().st_size != entry["size"] for name, entry in outputs.items()):
                return None
        except (OSError, ValueError, KeyError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)  # prune goes by the last use
        sums = {name: entry["sha256"] for name, entry in outputs.items()}
        return Artifact(request.label, key, manifest["version"], path, sums, tuple(outputs))

    @contextlib.contextmanager
    def lock(self, name: str, key: str, wait: bool = True) -> Iterator[int]:
        """Hold the right to make one artifact; gives the descriptor. The system releases it if the holder dies."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / f"{name}-{key}").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield file.fileno()

    @contextlib.contextmanager
    def workspace(self, name: str, key: str) -> Iterator[Path]:
        """A directory for one build, empty at first, gone at the end. Call it under the lock."""
        path = self.root / ".tmp" / f"{name}-{key}"
        remove_tree(path)
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            remove_tree(path)

    def adopt(
        self, request: Request, key: str, made: Path, facts: Mapping[str, Any], outputs: Sequence[str]
    ) -> Artifact:
        """Move what was made to its place in the store, in one step."""
        entries = {
            name: {"sha256": sha256_of(made / name), "size": (made / name).stat().st_size} for name in sorted(outputs)
        }
        manifest = {"name": request.name, "params": dict(request.params), "key": key, **facts, "outputs": entries}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        made.chmod(0o755)
        final = self.path(request.name, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(final)  # only ever one that `find` did not accept
        made.rename(final)
        artifact = self.find(request, key)
        if artifact is None:
            raise ArtifactError(f"{final}: cannot be read back after it was written")
        return artifact

    def entries(self) -> Iterator[Path]:
        return (found.parent for found in self.root.glob(f"[!.]*/*/{MANIFEST}"))

    def damaged(self) -> list[str]:
        """Files whose content is not what their manifest says."""
        bad = []
        for entry in self.entries():
            manifest = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
            for name, wanted in manifest["outputs"].items():
                if not (entry / name).is_file() or sha256_of(entry / name) != wanted["sha256"]:
                    bad.append(str(entry / name))
        return bad

    def prune(self, days: float) -> list[str]:
        """Remove what nobody used for so many days; an artifact in the making is left alone."""
        before = time.time() - days * 86400
        removed = []
        for entry in list(self.entries()):
            if (entry / MANIFEST).stat().st_mtime < before:
                with contextlib.suppress(BlockingIOError), self.lock(entry.parent.name, entry.name, wait=False):
                    remove_tree(entry)
                    removed.append(f"{entry.parent.name}/{entry.name}")
        for left in (self.root / ".tmp").glob("*"):
            name, _, key = left.name.rpartition("-")
            with contextlib.suppress(BlockingIOError), self.lock(name, key, wait=False):
                remove_tree(left)
        for directory in (self.logs, self.cache / "apt"):
            for file in directory.glob("*"):
                if file.is_file() and file.stat().st_mtime < before:
                    file.unlink()
        return sorted(removed)


def remove_tree(path: Path) -> None:
    """Remove a directory whatever its modes are (the Go module cache, for one, makes its directories read-only)."""
    if not path.exists():
        return
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o700)
    shutil.rmtree(path)
