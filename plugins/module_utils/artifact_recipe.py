"""Recipes: what `recipe.yml` says, and the key that a recipe's inputs give.

Two artifacts with the same key were made from the same inputs, so a key is also the name of a place in the store.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

LANES = ("go", "debian", "light")
FIELDS = ("description", "version", "needs", "params", "paths", "outputs", "lane", "seconds")
# What a build.sh may use, and the word in it that tells that it does; so a change of how images are written does not
# build Kubernetes anew. All of it is reached through lib.sh.
LIBRARY = {"lib.sh": "", "debian.sh": "debian_rootfs", "debian_cache.sh": "debian_rootfs", "oci_image.py": "oci_"}
# What tools leave behind beside sources; never an input.
IGNORED = {"__pycache__", ".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"}
IGNORED_SUFFIXES = (".pyc", ".egg-info", ".swp", "~")
# Raised when the engine itself changes what it gives to a build, so that old artifacts are not taken for new ones.
FORMAT = 1


class ArtifactError(Exception):
    """Something is wrong that the user can put right; the message is for them. `detail` is more than one line."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n{self.detail}" if self.detail else text


@dataclasses.dataclass(frozen=True)
class Request:
    """An artifact that somebody wants: a recipe's name and, where the recipe takes some, its parameters."""

    name: str
    params: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The name in the index: `traefik`, or `service:auth` for the recipe `service` with the parameter auth."""
        return ":".join([self.name, *(value for _, value in self.params)])


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One directory with a `recipe.yml` and a `build.sh`."""

    name: str
    directory: Path
    description: str
    version_keys: tuple[str, ...]
    needs: tuple[str, ...]
    params: tuple[str, ...]
    paths: tuple[str, ...]
    outputs: tuple[str, ...]
    lane: str
    seconds: int

    @classmethod
    def load(cls, directory: Path) -> Recipe:
        where = directory / "recipe.yml"
        try:
            data = yaml.safe_load(where.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ArtifactError(f"{where}: {' '.join(str(error).split())}") from error
        if not isinstance(data, dict):
            raise ArtifactError(f"{where}: must be a mapping, for example 'outputs: [traefik]'")
        for field in data:
            if field not in FIELDS:
                near = difflib.get_close_matches(str(field), FIELDS, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(FIELDS)}"
                raise ArtifactError(f"{where}: unknown field '{field}', {hint}")
        outputs = _strings(where, data, "outputs")
        if not outputs or any("/" in output or output == "manifest.json" for output in outputs):
            raise ArtifactError(f"{where}: outputs must list plain file names, for example [traefik.tar.zst]")
        if data.get("lane") not in LANES:
            raise ArtifactError(f"{where}: lane is {data.get('lane')!r}, must be one of {', '.join(LANES)}")
        if not isinstance(data.get("seconds"), int):
            raise ArtifactError(f"{where}: seconds must be the typical cold build time, for example 90")
        if not (directory / "build.sh").is_file():
            raise ArtifactError(f"{directory}: has a recipe.yml but no build.sh")
        paths = _strings(where, data, "paths")
        placeholders = tuple(dict.fromkeys(re.findall(r"{(\w+)}", " ".join(paths))))
        return cls(
            name=directory.name,
            directory=directory,
            description=str(data.get("description", "")),
            version_keys=_strings(where, data, "version"),
            needs=_strings(where, data, "needs"),
            params=_strings(where, data, "params") or placeholders,
            paths=paths,
            outputs=outputs,
            lane=data["lane"],
            seconds=data["seconds"],
        )


def _strings(where: Path, data: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """A field that is a list of strings; one string stands for a list of one."""
    value = data.get(field, [])
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ArtifactError(f"{where}: {field} must be a list of strings, found {value!r}")
    return tuple(value)


class Catalog:
    """Every recipe below the recipe paths, and the keys of what they make."""

    def __init__(
        self,
        recipe_paths: Iterable[Path],
        source: Path,
        library: Path,
        versions: Mapping[str, Any],
        go_version: str,
    ) -> None:
        self.recipe_paths = tuple(recipe_paths)
        self.source = source
        self.library = library
        self.versions = versions
        self.go_version = go_version
        self._recipes: dict[str, Recipe] = {}
        self._digests: dict[Path, str] = {}

    def names(self) -> list[str]:
        return sorted({found.parent.name for path in self.recipe_paths for found in path.glob("*/recipe.yml")})

    def has(self, name: str) -> bool:
        return any((path / name / "recipe.yml").is_file() for path in self.recipe_paths)

    def recipe(self, name: str) -> Recipe:
        recipe = self._recipes.get(name)
        if recipe is None:
            found = [path / name for path in self.recipe_paths if (path / name / "recipe.yml").is_file()]
            if not found:
                near = difflib.get_close_matches(name, self.names(), 1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                where = ", ".join(str(path) for path in self.recipe_paths)
                raise ArtifactError(f"artifact '{name}': no recipe of that name in {where}{hint}")
            if len(found) > 1:
                raise ArtifactError(f"artifact '{name}': two recipes of that name, {found[0]} and {found[1]}")
            recipe = self._recipes[name] = Recipe.load(found[0])
        return recipe

    def request(self, value: str | Mapping[str, Any]) -> Request:
        """Understand `traefik`, `service:auth` and `{name: service, params: {service: auth}}`."""
        if isinstance(value, str):
            name, *values = value.split(":")
            declared = self.recipe(name).params if values else ()
            if len(values) != len(declared):
                raise ArtifactError(f"artifact '{value}': recipe '{name}' takes {len(declared)} parameters")
            return Request(name, tuple(zip(declared, values, strict=True)))
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str) or set(value) - {"name", "params"}:
            raise ArtifactError(f"artifact {value!r}: must be a name or {{name: service, params: {{service: auth}}}}")
        params = {str(key): str(item) for key, item in (value.get("params") or {}).items()}
        if not params:
            return Request(value["name"])
        declared = self.recipe(value["name"]).params
        if set(params) != set(declared):
            wanted = ", ".join(declared) or "none"
            raise ArtifactError(f"artifact '{value['name']}': found parameters {', '.join(params)}, wanted {wanted}")
        return Request(value["name"], tuple((key, params[key]) for key in declared))

    def needs(self, request: Request) -> list[Request]:
        params = dict(request.params)
        return [self.request(need.format_map(params)) for need in self.recipe(request.name).needs]

    def version(self, request: Request) -> str:
        """The version that the artifact is built at, or an empty string."""
        return next(iter(self.recipe_versions(request).values()), "")

    def recipe_versions(self, request: Request) -> dict[str, str]:
        recipe = self.recipe(request.name)
        missing = [key for key in recipe.version_keys if key not in self.versions]
        if missing:
            raise ArtifactError(
                f"{recipe.directory / 'recipe.yml'}: version '{missing[0]}' is not in versions.yml,"
                f" add a line such as '{missing[0]}: 1.2.3'"
            )
        return {key: str(self.versions[key]) for key in recipe.version_keys}

    def key(self, request: Request, parents: tuple[str, ...] = ()) -> str:
        return digest_of(self.inputs(request, parents))

    def inputs(self, request: Request, parents: tuple[str, ...] = ()) -> dict[str, Any]:
        """Everything that the artifact depends on. A change of any of it gives another key."""
        if request.label in parents:
            raise ArtifactError(f"recipes need each other in a circle: {' -> '.join([*parents, request.label])}")
        recipe = self.recipe(request.name)
        if set(recipe.params) != {key for key, _ in request.params}:
            wanted = ":".join([recipe.name, *(f"<{param}>" for param in recipe.params)])
            raise ArtifactError(f"artifact '{request.label}': wanted {wanted}")
        script = (recipe.directory / "build.sh").read_text(encoding="utf-8")
        return {
            "format": FORMAT,
            "recipe": self._tree(recipe.directory),
            "library": {name: sha256_of(self.library / name) for name, word in LIBRARY.items() if word in script},
            "versions": self.recipe_versions(request),
            "needs": {need.label: self.key(need, (*parents, request.label)) for need in self.needs(request)},
            "paths": self._paths(recipe, dict(request.params)),
            "params": dict(request.params),
            "machine": platform.machine(),
            "go": self.go_version if recipe.lane == "go" else "",
        }

    def forget(self) -> None:
        """Read the recipes anew: for a second look at inputs that may have changed meanwhile."""
        self._recipes.clear()
        self._digests.clear()

    def _tree(self, directory: Path) -> str:
        digest = self._digests.get(directory)
        if digest is None:
            digest = self._digests[directory] = digest_of(dict(_fingerprints(directory, directory)))
        return digest

    def _paths(self, recipe: Recipe, params: Mapping[str, str]) -> str:
        prints: dict[str, str] = {}
        for pattern in recipe.paths:
            before = len(prints)
            for found in sorted(self.source.glob(pattern.format_map(params))):
                prints.update(_fingerprints(found, self.source))
            if len(prints) == before:
                raise ArtifactError(f"{recipe.directory / 'recipe.yml'}: path '{pattern}' matches no file")
        return digest_of(prints)


def _fingerprints(path: Path, base: Path) -> Iterator[tuple[str, str]]:
    """Every file at or below a path with its type, execute permission and content."""
    relative = path.relative_to(base)
    if IGNORED.intersection(relative.parts) or relative.name.endswith(IGNORED_SUFFIXES):
        return
    if path.is_symlink():
        yield relative.as_posix(), f"link {path.readlink()}"
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _fingerprints(child, base)
    elif path.is_file():
        kind = "program" if path.stat().st_mode & 0o100 else "file"
        yield relative.as_posix(), f"{kind} {sha256_of(path)}"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
