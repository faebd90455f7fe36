"""Every variable of every host against the schema; unknown names that look like ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import yaml

from . import schema as schemas
from .inventory import Inventory, Value
from .mistake import Mistake
from .names import closest, is_ours

COMMAND_LINE = "<CLI option '-e'>"


def known_names(root: Path, declared: Collection[str]) -> set[str]:
    """Declared variables, shared data (versions, images) and every role's defaults."""
    names = set(declared)
    for pattern in ("group_vars/all/*.yml", "roles/*/defaults/*.yml"):
        for path in root.glob(pattern):
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            names.update(document if isinstance(document, dict) else ())
    return names


def check(inventory: Inventory, declared: Mapping[str, schemas.Schema], known: Collection[str],
          required: Collection[str]) -> Iterator[Mistake]:  # fmt: skip
    """A mistake that every host shares is one mistake; a value of one host alone names the host."""
    seen: set[tuple[str, str, str]] = set()
    for host, variables in inventory.variables.items():
        for name, value in variables.items():
            for mistake in one_variable(name, value, declared, known):
                shown = (mistake.where, mistake.path, mistake.found)
                if shown not in seen:
                    seen.add(shown)
                    yield with_host(mistake, host) if name in ("ansible_host", "ansible_port") else mistake
    controller = inventory.variables.get("localhost", {})
    for name in required:
        if name not in controller:
            schema = declared[name]
            yield Mistake(inventory.source, name, "nothing", schemas.wanted_for(schema),
                          f"{name}: {schemas.example(schema)}")  # fmt: skip


def with_host(mistake: Mistake, host: str) -> Mistake:
    path = mistake.path if host == "localhost" else f"{host}.{mistake.path}"
    return Mistake(mistake.where, path, mistake.found, mistake.wanted, mistake.example)


def one_variable(name: str, value: Value, declared: Mapping[str, schemas.Schema],
                 known: Collection[str]) -> Iterator[Mistake]:  # fmt: skip
    schema = declared.get(name)
    if schema is None:
        if name not in known:
            yield from unknown(name, value, declared, known)
        return
    if isinstance(value.value, Unusable):
        yield Mistake(value.where, name, value.value.reason, schemas.wanted_for(schema), schemas.example(schema))
        return
    for finding in schemas.check(name, value.value, schema):
        example = finding.example
        if value.where == COMMAND_LINE and isinstance(value.value, str) and schema.get("type") != "string":
            example = f"-e '{{\"{name}\": {example}}}'"
        yield Mistake(value.where, finding.path, finding.found, finding.wanted, example)


class Unusable:
    """Stands for a value that cannot be computed: an undefined variable in a template, an undecryptable value."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def unknown(name: str, value: Value, declared: Mapping[str, schemas.Schema],
            known: Collection[str]) -> Iterator[Mistake]:  # fmt: skip
    guess = closest(name, known, 0.85)
    if guess is None and is_ours(name, declared):
        guess = closest(name, known, 0.7)
    elif guess is None:
        return
    if guess is None:
        prefix = name.split("_", 1)[0]
        yield Mistake(value.where, name, "an unknown variable",
                      f"one that exists (names with {prefix}_ are the platform's own)",
                      next(entry for entry in sorted(declared) if entry.startswith(f"{prefix}_")))  # fmt: skip
        return
    sample = schemas.example(declared[guess]) if guess in declared else "..."
    yield Mistake(value.where, name, "an unknown variable", f"{guess} (did you mean that?)", f"{guess}: {sample}")
