"""Every variable of every host against the schema; unknown names that look like ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import schema as schemas
from .inventory import Inventory, Value
from .mistake import Mistake
from .names import closest, prefix_of

# Names that belong to the platform as a whole; every role's name is a prefix as well.
PREFIXES = {"slipway", "platform", "services"}
COMMAND_LINE = "-e"


@dataclass(frozen=True)
class Declared:
    """What a user may set, and what else exists under these names (versions, images, defaults)."""

    schemas: Mapping[str, schemas.Schema]
    required: list[str]
    known: set[str]
    prefixes: set[str]

    @classmethod
    def read(cls, root: Path, directory: Path) -> Declared:
        declared = schemas.variables(directory)
        known = set(declared)
        for pattern in ("group_vars/all/*.yml", "roles/*/defaults/*.yml"):
            for path in root.glob(pattern):
                document = yaml.safe_load(path.read_text(encoding="utf-8"))
                known.update(document if isinstance(document, dict) else ())
        prefixes = PREFIXES | {path.name for path in root.glob("roles/*/")}
        return cls(declared, schemas.required(directory), known, prefixes)


class Unusable:
    """Stands for a value that cannot be computed: an undefined variable in a template, an undecryptable value."""

    def __init__(self, reason: str) -> None:
        self.reason = f"a template that does not evaluate ({reason})"
        self.undefined = reason.removesuffix("' is undefined").removeprefix("'")


def check(inventory: Inventory, declared: Declared) -> Iterator[Mistake]:
    """A mistake that every host shares is one mistake; a connection variable names its host."""
    controller = inventory.variables.get("localhost", {})
    missing = [name for name in declared.required if name not in controller]
    seen: set[tuple[str, str, str]] = set()
    for host, variables in inventory.variables.items():
        for name, value in variables.items():
            if isinstance(value.value, Unusable) and value.value.undefined in missing:
                continue  # said once, below, for the variable that is missing
            for mistake in one_variable(name, value, declared):
                shown = (mistake.where, mistake.path, mistake.found)
                if shown not in seen:
                    seen.add(shown)
                    yield with_host(mistake, host) if name in ("ansible_host", "ansible_port") else mistake
    for name in missing:
        schema = declared.schemas[name]
        sample = f"{name}: {schemas.example(schema)}"
        yield Mistake(inventory.source, name, "nothing", schemas.wanted_for(schema), sample)


def with_host(mistake: Mistake, host: str) -> Mistake:
    path = mistake.path if host == "localhost" else f"{host}.{mistake.path}"
    return Mistake(mistake.where, path, mistake.found, mistake.wanted, mistake.example)


def one_variable(name: str, value: Value, declared: Declared) -> Iterator[Mistake]:
    schema = declared.schemas.get(name)
    if schema is None:
        if name not in declared.known:
            yield from unknown(name, value, declared)
        return
    if isinstance(value.value, Unusable):
        yield Mistake(value.where, name, value.value.reason, schemas.wanted_for(schema), schemas.example(schema))
        return
    for finding in schemas.check(name, value.value, schema):
        example = finding.example
        if value.where == COMMAND_LINE and isinstance(value.value, str) and schema.get("type") != "string":
            example = f"-e '{{\"{name}\": {example}}}'"
        yield Mistake(value.where, finding.path, finding.found, finding.wanted, example)


def unknown(name: str, value: Value, declared: Declared) -> Iterator[Mistake]:
    prefix = prefix_of(name, declared.prefixes)
    guess = closest(name, declared.known, 0.7 if prefix else 0.85)
    if guess is not None:
        sample = schemas.example(declared.schemas[guess]) if guess in declared.schemas else "..."
        yield Mistake(value.where, name, "an unknown variable", f"{guess} (did you mean that?)", f"{guess}: {sample}")
    elif prefix is not None:
        wanted = f"one that exists (names with {prefix}_ are the platform's own)"
        sample = next((entry for entry in sorted(declared.schemas) if entry.startswith(f"{prefix}_")), "company_name")
        yield Mistake(value.where, name, "an unknown variable", wanted, sample)
