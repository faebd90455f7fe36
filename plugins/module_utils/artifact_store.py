"""The artifact store: builds or downloads what the hosts will need, once per set of inputs, and remembers it.

The Ansible module `artifact` uses `make_engine`; `python plugins/module_utils/artifact_store.py --help` is by hand.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

if not __package__:  # the command line and the tests
    from artifact_engine import Engine, tool
    from artifact_entries import Store
    from artifact_recipe import ArtifactError, Catalog
    from artifact_release import refresh
else:  # packed by Ansible
    from .artifact_engine import Engine, tool  # type: ignore[import-not-found,no-redef,unused-ignore]
    from .artifact_entries import Store  # type: ignore[import-not-found,no-redef,unused-ignore]
    from .artifact_recipe import ArtifactError, Catalog  # type: ignore[import-not-found,no-redef,unused-ignore]
    from .artifact_release import refresh  # type: ignore[import-not-found,no-redef,unused-ignore]


def make_engine(
    source: Path,
    cache: Path,
    recipe_paths: Iterable[Path],
    versions: Mapping[str, Any],
    lock: Path | None,
    say: Callable[[str], None] = lambda line: None,
    keep_going: Callable[[], bool] = lambda: True,
) -> Engine:
    go = tool("go")
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
        go_version = answer.stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ArtifactError(f"cannot run {go}: {error}; 'make up' installs it into the virtual environment") from error
    catalog = Catalog(recipe_paths, source, source / "roles/artifacts/files", versions, go_version)
    return Engine(Store(cache), catalog, lock, go, say, keep_going)


def main(arguments: Sequence[str] | None = None) -> int:
    source = Path(__file__).resolve().parents[2]
    files = source / "roles/artifacts/files"
    parser = argparse.ArgumentParser(prog="artifact_store.py", description="Build, download, list and prune artifacts.")
    parser.add_argument("--recipes", action="append", type=Path, help="recipe path; default: images, molecule/recipes")
    parser.add_argument("--cache", type=Path, default=os.environ.get("SLIPWAY_CACHE", "~/.cache/slipway"))
    parser.add_argument("--lock", type=Path, default=files / "release.lock.yml")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, text in (
        ("build", "make artifacts exist"),
        ("plan", "show what build would do"),
        ("key", "print keys"),
    ):
        sub = actions.add_parser(action, help=text)
        sub.add_argument("names", nargs="+", metavar="name", help="a recipe's name, with parameters as in service:auth")
        sub.add_argument("--provider", choices=("build", "release"), default="build")
    actions.add_parser("list", help="list every recipe")
    actions.add_parser("verify", help="compare every stored file with its recorded SHA-256")
    actions.add_parser("prune", help="remove what nobody used lately").add_argument("--days", type=float, default=30)
    actions.add_parser("refresh", help="pin a release anew from upstream's checksums").add_argument("names", nargs="+")
    options = parser.parse_args(arguments)
    try:
        return _act(options, source, files)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


def _act(options: argparse.Namespace, source: Path, files: Path) -> int:
    versions = yaml.safe_load((source / "group_vars/all/versions.yml").read_text(encoding="utf-8")) or {}
    cache = Path(options.cache).expanduser().resolve()
    if options.action == "refresh":
        for name in options.names:
            release = refresh(name, files / "release.sources.yml", options.lock, versions)
            print(f"{name}: pinned at {release.version} in {options.lock}")
        return 0
    if options.action == "prune":
        print("\n".join(Store(cache).prune(options.days)) or "nothing to prune")
        return 0
    if options.action == "verify":
        bad = Store(cache).damaged()
        print("\n".join(f"damaged: {path}" for path in bad) or "every stored file is what its manifest says")
        return 1 if bad else 0
    recipe_paths = options.recipes or [source / "images", source / "molecule/recipes"]
    say = _say if options.action == "build" else (lambda line: None)
    engine = make_engine(source, cache, recipe_paths, versions, options.lock, say)
    catalog = engine.catalog
    if options.action == "list":
        for name in catalog.names():
            recipe = catalog.recipe(name)
            print(f"{name:26} {recipe.lane:7} {recipe.seconds:4} s  {recipe.description}")
        return 0
    requests = [catalog.request(name) for name in options.names]
    if options.action == "key":
        for request in requests:
            print(f"{catalog.key(request)}  {request.label}")
    elif options.action == "plan":
        artifacts, jobs = engine.plan(requests, options.provider)
        todo = {job.request.label for job in jobs}
        for label in dict.fromkeys([*todo, *artifacts]):
            print(f"{'make' if label in todo else 'have'}  {label}")
    else:
        artifacts, _ = engine.ensure(requests, options.provider)
        for artifact in artifacts.values():
            print(artifact.path)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def stop_on_signal() -> None:
    """Turn a polite request to end into the exception that stops the builds."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    stop_on_signal()
    sys.exit(main())
