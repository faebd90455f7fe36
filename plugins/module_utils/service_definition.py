"""Reads services/<name>/service.yml, the only description of a service, and finds every mistake in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import alert_table
import yaml
from preflight.mistake import Mistake, as_yaml
from preflight.names import closest
from preflight.schema import check, resolve

Definition = dict[str, Any]

FILE = "service.yml"
# What its alerts are, if it brings any.
ALERTS = "alerts.yml"
# What a service may name beside other services.
CALLERS = ("ingress", "monitoring")
CALLEES = ("postgres", "minio", "redis")
# What a service calls that has one of these fields.
NEEDS = {"database": "postgres", "bucket": "minio", "redis": "redis", "service_tokens": "auth"}
# Secret files that follow from `database`, `bucket`, `redis` and `service_tokens`.
RESERVED = ("database_password", "s3_access_key", "s3_secret_key", "redis_password", "service_key")

# Names below the domain that pages of the platform have (playbooks/platform.yml).
PLATFORM_HOSTS = ("status",)


def load_schema(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema: dict[str, Any] = resolve(document, document["$defs"])
    return schema


def load(directory: Path, names: Sequence[str], schema: Mapping[str, Any]) -> tuple[list[Definition], list[Mistake]]:
    """The named services' definitions, complete with defaults, and what is wrong with them."""
    definitions, mistakes = [], []
    for name in names:
        path = directory / name / FILE
        where = f"{directory.name}/{name}/{FILE}"
        definition, found = _read(path, where, name, directory, schema)
        mistakes += found
        if definition is not None:
            definitions.append(definition)
    if not mistakes:
        mistakes += _across(definitions, directory.name)
    complete = [_complete(definition, schema) for definition in definitions]
    for definition in complete:
        definition["alerts"], found = _alerts(directory, definition["name"])
        mistakes += found
    return complete, mistakes


def _alerts(directory: Path, name: str) -> tuple[str, list[Mistake]]:
    """The table of alerts that a service brings, or nothing, and what is wrong with it."""
    path = directory / name / ALERTS
    if not path.exists():
        return "", []
    text = path.read_text(encoding="utf-8")
    try:
        alert_table.read(text, f"{directory.name}/{name}/{ALERTS}")
    except alert_table.TableError as error:
        return text, error.mistakes
    return text, []


def _read(
    path: Path, where: str, name: str, directory: Path, schema: Mapping[str, Any]
) -> tuple[Definition | None, list[Mistake]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        known = sorted(found.parent.name for found in directory.glob(f"*/{FILE}"))
        wanted = f"{guess} (did you mean that?)" if (guess := closest(name, known)) else f"one of {', '.join(known)}"
        return None, [Mistake("services_enabled", name, f"no {where}", wanted, as_yaml(known[:3]))]
    except yaml.YAMLError as error:
        found = f"no YAML ({' '.join(str(error).split())})"
        return None, [Mistake(where, "the file", found, "a map", "name: image")]
    if not isinstance(content, dict):
        return None, [Mistake(where, "the file", "no map", "a map", "name: image")]
    mistakes = [
        Mistake(where, finding.path.removeprefix("service."), finding.found, finding.wanted, finding.example)
        for finding in check("service", content, dict(schema))
    ]
    if not mistakes:
        mistakes = list(_alone(content, where, name))
    return (None if mistakes else content), mistakes


def _alone(definition: Definition, where: str, folder: str) -> Iterator[Mistake]:
    """Rules between the fields of one service."""
    if definition["name"] != folder:
        yield Mistake(where, "name", as_yaml(definition["name"]), "the name of its folder", folder)
    if "ingress" in definition and "ingress" not in definition["callers"]:
        callers = [*definition["callers"], "ingress"]
        yield Mistake(where, "callers", "no ingress, though the service has a path there", "ingress", as_yaml(callers))
    for field, callee in NEEDS.items():
        if definition.get(field, False) is not False and callee not in definition["callees"]:
            callees = [*definition["callees"], callee]
            yield Mistake(where, "callees", f"no {callee}, though it declares {field}", callee, as_yaml(callees))
    schedules = [schedule["name"] for schedule in definition.get("schedules", [])]
    for name in dict.fromkeys(name for name in schedules if schedules.count(name) > 1):
        yield Mistake(where, "schedules", f"{name} twice", "a name of its own for each", f"{name}-2")
    for name in definition.get("secrets", {}):
        if name in RESERVED:
            yield Mistake(where, f"secrets.{name}", "a name that the platform uses", "another name", f"other_{name}")


def _across(definitions: Iterable[Definition], directory: str) -> Iterator[Mistake]:
    """Rules between services: who calls must be allowed to, and both ends have to exist."""
    services = {definition["name"]: definition for definition in definitions}
    for name, definition in services.items():
        where = f"{directory}/{name}/{FILE}"
        for field, others, opposite in (("callees", CALLEES, "callers"), ("callers", CALLERS, "callees")):
            for other in definition[field]:
                if other in others:
                    continue
                if other not in services:
                    known = [*sorted(services), *others]
                    guess = closest(other, known)
                    wanted = f"{guess} (did you mean that?)" if guess else f"one of {', '.join(known)}"
                    yield Mistake(where, field, as_yaml(other), f"an enabled service, {wanted}", guess or known[0])
                elif field == "callees" and name not in services[other][opposite]:
                    yield Mistake(
                        f"{directory}/{other}/{FILE}",
                        opposite,
                        f"no {name}, which calls it",
                        name,
                        as_yaml([*services[other][opposite], name]),
                    )

    yield from _reads(services, directory)
    yield from _ingresses(services, directory)


def _reads(services: Mapping[str, Definition], directory: str) -> Iterator[Mistake]:
    """Keys that are read belong to another service, which has some."""
    owners = sorted(name for name, definition in services.items() if "redis" in definition)
    for name, definition in services.items():
        others = [owner for owner in owners if owner != name]
        for key in definition.get("redis", {}).get("reads", []):
            if key.partition(":")[0] not in others:
                wanted = f"a key of {' or '.join(others)}" if others else "no key: no other service has redis"
                example = f"{others[0]}:some-key" if others else "redis: {}"
                yield Mistake(f"{directory}/{name}/{FILE}", "redis.reads", as_yaml(key), wanted, example)


def _ingresses(services: Mapping[str, Definition], directory: str) -> Iterator[Mistake]:
    """No two services have the same place, and none that of a page of the platform."""
    places: dict[tuple[str, str], str] = {}
    for name, definition in services.items():
        if "ingress" not in definition:
            continue
        ingress = definition["ingress"]
        if ingress.get("host") in PLATFORM_HOSTS:
            found = f"{as_yaml(ingress['host'])}, which a page of the platform has"
            yield Mistake(f"{directory}/{name}/{FILE}", "ingress.host", found, "another host", name)
        owner = places.setdefault((ingress.get("host", ""), ingress["path"]), name)
        if owner != name:
            found = f"{as_yaml(ingress)}, as {owner} has it"
            yield Mistake(f"{directory}/{name}/{FILE}", "ingress", found, "another path or host", f"host: {name}")


def _complete(definition: Definition, schema: Mapping[str, Any]) -> Definition:
    defaults = {key: value["default"] for key, value in schema["properties"].items() if "default" in value}
    module = definition["name"].replace("-", "_")
    # An image of a recipe of its own knows what it starts.
    command = ["python3", "-m", f"slipway_{module}"] if definition.get("image", "service") == "service" else []
    return {"command": command, "environment": {}, "secrets": {}, "schedules": [], **defaults, **definition}
