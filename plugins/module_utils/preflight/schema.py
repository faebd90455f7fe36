"""The user's variables: one JSON Schema, read from a directory of small files (one for each role and topic).

A file holds `properties` in JSON Schema 2020-12 with `description`, `default` and `examples`; shared types stand in
definitions.yml. Keywords of our own start with x-:

    x-secret      the value is never shown
    x-wanted      the words for what is wanted, when those made from type and range are not good enough
    x-internal    set by playbooks, not by users: part of the role's arguments, no default
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

from .mistake import as_yaml, show
from .names import closest

Schema = dict[str, Any]
DEFINITIONS = "definitions.yml"
FORMATS = FormatChecker(formats=())


def is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(ipaddress.IPv4Address(value))


def is_network(value: object) -> bool:
    """Without a mask a network is one address, and with host bits set it is a typing error."""
    return not isinstance(value, str) or ("/" in value and bool(ipaddress.IPv4Network(value)))


FORMATS.checks("ipv4-address", raises=ValueError)(is_address)
FORMATS.checks("ipv4-network", raises=ValueError)(is_network)


def topics(directory: Path) -> dict[str, Schema]:
    """The schema's files by topic, with references replaced by what they refer to."""
    definitions = yaml.safe_load((directory / DEFINITIONS).read_text(encoding="utf-8"))["$defs"]
    found = {}
    for path in sorted(directory.glob("*.yml")):
        if path.name != DEFINITIONS:
            found[path.stem] = resolve(yaml.safe_load(path.read_text(encoding="utf-8")), definitions)
    return found


def resolve(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """Keywords beside a $ref win over those of the definition: they are closer to the variable."""
    if isinstance(schema, list):
        return [resolve(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    own = {key: resolve(value, definitions) for key, value in schema.items() if key != "$ref"}
    reference = schema.get("$ref")
    if reference is None:
        return own
    return {**resolve(definitions[reference.removeprefix("#/$defs/")], definitions), **own}


def variables(directory: Path) -> dict[str, Schema]:
    """Every declared variable by name."""
    merged: dict[str, Schema] = {}
    for topic, document in topics(directory).items():
        for name, schema in document["properties"].items():
            if name in merged:
                raise ValueError(f"{topic}.yml declares {name}, which another file declares too")
            merged[name] = schema
    return merged


def required(directory: Path) -> list[str]:
    return [name for document in topics(directory).values() for name in document.get("required", [])]


class Finding:
    """One violation inside of one value."""

    def __init__(self, path: str, found: str, wanted: str, example: str) -> None:
        self.path, self.found, self.wanted, self.example = path, found, wanted, example


def check(name: str, value: Any, schema: Schema) -> Iterator[Finding]:
    """What is wrong with a value: the first violation at each place."""
    seen = set()
    for error in Draft202012Validator(schema, format_checker=FORMATS).iter_errors(value):
        for finding in findings(name, error, schema):
            if finding.path not in seen:
                seen.add(finding.path)
                yield finding


def findings(name: str, error: ValidationError, root: Schema) -> Iterator[Finding]:
    path = name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    schema = error.schema if isinstance(error.schema, dict) else {}
    here = root if not error.absolute_path else schema
    secret = bool(root.get("x-secret") or here.get("x-secret"))
    if error.validator == "additionalProperties":
        allowed = list(here.get("properties", {}))
        for key in sorted(set(error.instance) - set(allowed)):
            guess = closest(key, allowed)
            wanted = f"{guess} (did you mean that?)" if guess else f"one of {', '.join(allowed)}"
            yield Finding(f"{path}.{key}", "an unknown key", wanted, example(here["properties"].get(guess, here)))
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                inner = here.get("properties", {}).get(key, {})
                yield Finding(f"{path}.{key}", "nothing", wanted_for(inner), example(inner))
    elif error.validator == "uniqueItems":
        yield Finding(path, "an item twice", "each item once", example(here))
    elif error.validator == "propertyNames":
        yield Finding(path, show(error.instance, path, secret), wanted_for(schema), example(here))
    else:
        sample = example(here) if "examples" in here or "default" in here else example(root)
        yield Finding(path, show(error.instance, path, secret), wanted_for(here), sample)


def wanted_for(schema: Schema) -> str:
    """What is wanted, in words: those of the schema, or made from type and range."""
    if "x-wanted" in schema:
        return str(schema["x-wanted"])
    if "enum" in schema:
        return "one of " + ", ".join(as_yaml(choice) for choice in schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return "true or false (without quotes)"
    if kind in ("integer", "number"):
        words = "a whole number" if kind == "integer" else "a number"
        if "minimum" in schema and "maximum" in schema:
            words += f" from {schema['minimum']} to {schema['maximum']}"
        elif "minimum" in schema:
            words += f" of at least {schema['minimum']}"
        return words + " (without quotes)"
    if kind == "array":
        return "a list"
    if kind == "object":
        return "a map"
    if kind == "string":
        return "text" if not schema.get("minLength") else "text that is not empty"
    return "a valid value"


def example(schema: Schema) -> str:
    if schema.get("examples"):
        return as_yaml(schema["examples"][0])
    if "default" in schema and "{{" not in str(schema["default"]):
        return as_yaml(schema["default"])
    if schema.get("enum"):
        return as_yaml(schema["enum"][0])
    return {"boolean": "true", "integer": str(schema.get("minimum", 1)), "array": "[]", "object": "{}"}.get(
        str(schema.get("type")), "see the role's README"
    )
