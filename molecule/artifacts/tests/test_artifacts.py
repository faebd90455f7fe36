"""The artifact store: what later steps find in it is what was made, and what is damaged is found. Damage is
done to a store of the test's own."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from controller import ROOT, Run, apply_role, python

ENGINE = "plugins/module_utils/artifact_store.py"
CONTENT = "made of nothing\n"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the lab's


@pytest.fixture(scope="session")
def index(state: Path) -> dict[str, Any]:
    """Return the index that the artifacts step left for those after it."""
    found: dict[str, Any] = yaml.safe_load((state / "artifacts.yml").read_text(encoding="utf-8"))
    return found


def test_everything_that_the_hosts_need_is_in_the_index(index: dict[str, Any]) -> None:
    assert {"k3s", "postgres", "minio", "traefik"} <= set(index)
    assert set(index["k3s"]["files"]) == {"k3s", "k3s-airgap-images-amd64.tar.zst"}


def test_every_file_of_the_index_is_what_its_sums_say(index: dict[str, Any]) -> None:
    for name, entry in index.items():
        assert set(entry["files"]) == set(entry["sha256"]) != set(), name
        found = {file: digest(Path(path)) for file, path in entry["files"].items()}
        assert found == entry["sha256"], name


def test_the_index_and_the_manifests_agree(index: dict[str, Any]) -> None:
    for name, entry in index.items():
        manifest = json.loads((Path(entry["path"]) / "manifest.json").read_text(encoding="utf-8"))
        assert {file: output["sha256"] for file, output in manifest["outputs"].items()} == entry["sha256"], name
        assert Path(entry["path"]).name == manifest["key"] == entry["key"]


# --- one of the test's own


class Workshop:
    """A project with one recipe, and a store."""

    def __init__(self, base: Path) -> None:
        self.recipe, self.cache, self.index = base / "recipes" / "trifle", base / "cache", base / "artifacts.yml"
        self.lock = base / "release.lock.yml"
        self.recipe.mkdir(parents=True)
        self.lock.write_text("{}\n", encoding="utf-8")
        description = {"description": "Nothing much", "outputs": ["trifle"], "lane": "light", "seconds": 1}
        (self.recipe / "recipe.yml").write_text(yaml.safe_dump(description), encoding="utf-8")
        self.script(f"printf '%s' '{CONTENT}' >\"$OUT/trifle\"")

    def script(self, text: str) -> None:
        (self.recipe / "build.sh").write_text(f"{text}\n", encoding="utf-8")

    def ensure(self, *arguments: str, provider: str = "build") -> Run:
        variables = {
            "artifacts_names": ["trifle"],
            "artifacts_provider": provider,
            "artifacts_recipe_paths": [str(self.recipe.parent)],
            "artifacts_cache_dir": str(self.cache),
            "artifacts_lock": str(self.lock),
            "artifacts_index": str(self.index),
        }
        return apply_role("artifacts", *arguments, variables=variables)

    def verify(self) -> Run:
        return python(ENGINE, "--recipes", str(self.recipe.parent), "--cache", str(self.cache), "verify")

    @property
    def entries(self) -> list[Path]:
        return sorted(path.parent for path in (self.cache / "store").glob("trifle/*/manifest.json"))

    @property
    def product(self) -> Path:
        found = yaml.safe_load(self.index.read_text(encoding="utf-8"))["trifle"]
        return Path(found["files"]["trifle"])


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Return a workshop whose store is empty."""
    return Workshop(tmp_path)


def test_check_mode_makes_nothing(workshop: Workshop) -> None:
    run = workshop.ensure("--check")
    assert run.code == 0, run.output
    assert workshop.entries == []
    assert not workshop.index.exists()


def test_it_is_made_once_and_made_anew_when_its_recipe_changes(workshop: Workshop) -> None:
    first = workshop.ensure()
    assert first.code == 0, first.output
    assert first.changed > 0
    made = workshop.product
    assert made.read_text(encoding="utf-8") == CONTENT
    written = made.stat().st_mtime_ns
    second = workshop.ensure()
    assert second.code == 0, second.output
    assert second.changed == 0
    assert workshop.product.stat().st_mtime_ns == written
    workshop.script('printf other >"$OUT/trifle"')
    assert workshop.ensure().changed > 0
    assert workshop.product.read_text(encoding="utf-8") == "other"
    assert made.exists(), "a store's entry never changes"


def test_a_damaged_file_is_found(workshop: Workshop) -> None:
    assert workshop.ensure().code == 0
    assert workshop.verify().code == 0
    product = workshop.product
    product.chmod(0o644)
    product.write_text(CONTENT.upper(), encoding="utf-8")
    run = workshop.verify()
    assert run.code != 0
    assert str(product) in run.output


def test_a_file_that_was_cut_short_is_made_again(workshop: Workshop) -> None:
    assert workshop.ensure().code == 0
    product = workshop.product
    product.chmod(0o644)
    product.write_text("made", encoding="utf-8")
    assert workshop.ensure().code == 0
    assert workshop.product.read_text(encoding="utf-8") == CONTENT


@pytest.mark.parametrize("script", ["echo out of flour >&2; exit 3", "true"], ids=["fails", "makes nothing"])
def test_a_build_that_goes_wrong_says_why_and_leaves_nothing(workshop: Workshop, script: str) -> None:
    workshop.script(f'echo half >"$OUT/trifle.part"; rm "$OUT/trifle.part"; {script}')
    run = workshop.ensure()
    assert run.code != 0
    assert "trifle" in run.failure
    assert ("out of flour" if "flour" in script else "promises") in run.output
    assert "Traceback" not in run.output
    assert workshop.entries == []
    assert not workshop.index.exists()


@pytest.fixture
def release(workshop: Workshop, tmp_path: Path) -> Iterator[Any]:
    """Return a function that pins a release of a site of the test's own, by the sum that is given."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "trifle").write_text("released\n", encoding="utf-8")
    handler = partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def pin(sha256: str) -> None:
            url = f"http://127.0.0.1:{server.server_port}/trifle"
            lock = {"trifle": {"version": "1", "files": {"trifle": {"url": url, "sha256": sha256}}}}
            workshop.lock.write_text(yaml.safe_dump(lock), encoding="utf-8")

        yield pin
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and does not talk about it."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""


def test_a_release_is_taken_as_it_was_pinned(workshop: Workshop, release: Any) -> None:
    release(hashlib.sha256(b"released\n").hexdigest())
    run = workshop.ensure(provider="release")
    assert run.code == 0, run.output
    assert workshop.product.read_text(encoding="utf-8") == "released\n"


def test_a_release_that_is_not_what_was_pinned_is_refused(workshop: Workshop, release: Any) -> None:
    pinned = "0" * 64
    release(pinned)
    run = workshop.ensure(provider="release")
    assert run.code != 0
    assert pinned[:12] in run.output
    assert workshop.entries == []


def test_a_typo_gets_a_suggestion(workshop: Workshop) -> None:
    run = python(ENGINE, "--recipes", str(workshop.recipe.parent), "--cache", str(workshop.cache), "build", "trifel")
    assert run.code != 0
    assert "trifle" in run.output
    assert len(run.output.strip().splitlines()) == 1


def test_the_products_recipes_know_nothing_of_the_lab() -> None:
    """What users install must not depend on what only the lab needs."""
    run = python(ENGINE, "--recipes", str(ROOT / "images"), "plan", "postgres", "minio", "traefik", "service:auth")
    assert run.code == 0, run.output
    assert len(run.output.splitlines()) >= 4
