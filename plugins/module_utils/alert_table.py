"""Reads tables of alerts (roles/prometheus/files/alerts, services/*/alerts.yml) and makes Prometheus' rules of them.

A table says once what alerts that are alike have in common: `each` in an entry makes a rule of each of its maps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from preflight.mistake import Mistake
from preflight.schema import check, resolve

Entry = dict[str, Any]
Rule = dict[str, Any]

SCHEMA = Path(__file__).resolve().parents[2] / "roles/prometheus/files/alerts.schema.yml"
PLACE = re.compile(r"<([a-z_]+)>")
RUNBOOKS = "docs/runbooks"
DASHBOARDS = "/d"
KINDS = {"records": "record", "alerts": "alert"}


class TableError(ValueError):
    """A table that cannot be used; the message is one line for each of its mistakes."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


@cache
def load_schema() -> dict[str, Any]:
    """Return the schema of a table, with references replaced by what they refer to."""
    document = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    # One definition refers to no other.
    schema: dict[str, Any] = resolve(document, document["$defs"])
    return schema


def read(text: str, where: str) -> dict[str, Any]:
    """Return the records and alerts of a table, one entry for each rule; TableError if anything is wrong with it."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        found = f"no YAML ({' '.join(str(error).split())})"
        raise TableError([Mistake(where, "the file", found, "a map", "alerts: [...]")]) from error
    mistakes = list(_places(content, where))
    table = content if mistakes else _expanded(content)
    mistakes += [
        Mistake(where, _named(finding.path, table), finding.found, finding.wanted, finding.example)
        for finding in check("table", table, load_schema())
        if not mistakes
    ]
    if mistakes:
        raise TableError(mistakes)
    names = [entry["alert"] for entry in table["alerts"]]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        raise TableError([Mistake(where, f"alerts.{name}", "it twice", "a name of its own for each", f"{name}2")])
    return {"records": [], **table}


def _entries(content: Any) -> Iterator[tuple[str, str, Entry]]:
    """Every entry that is one, with its kind and name, whatever else is wrong with the file."""
    for kind, name in KINDS.items():
        listed = content.get(kind) if isinstance(content, dict) else None
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict):
                yield kind, str(entry.get(name, "?")), entry


def _maps(entry: Entry) -> list[dict[str, Any]]:
    each = entry.get("each", [{}])
    return [values for values in each if isinstance(values, dict)] if isinstance(each, list) else []


def _places(content: Any, where: str) -> Iterator[Mistake]:
    """Every `<word>` has a value in each map of its entry."""
    for kind, name, entry in _entries(content):
        words = set(PLACE.findall(yaml.safe_dump({key: part for key, part in entry.items() if key != "each"})))
        for values in _maps(entry):
            for word in sorted(words - set(values)):
                wanted = f"{word} in each of its maps"
                yield Mistake(where, f"{kind}.{name}.each", f"no {word}", wanted, f"each: [{{{word}: ...}}]")


def _expanded(content: Any) -> Any:
    """A table with an entry for each rule."""
    if not isinstance(content, dict):
        return content
    made: dict[str, list[Entry]] = {}
    for kind, _, entry in _entries(content):
        shared = {key: part for key, part in entry.items() if key != "each"}
        for values in _maps(entry):
            made.setdefault(kind, []).append(_filled(shared, {word: str(value) for word, value in values.items()}))
    return {**content, **made}


def _named(path: str, table: Any) -> str:
    """A place in a table by the name of its entry: the number changes with every line above."""
    found = re.match(r"table\.(records|alerts)\[(\d+)\]", path)
    if not found:
        return path.removeprefix("table").removeprefix(".") or "the file"
    entry = table[found[1]][int(found[2])]
    name = entry.get(KINDS[found[1]], found[2]) if isinstance(entry, dict) else found[2]
    return f"{found[1]}.{name}{path[found.end() :]}"


def _filled(part: Any, values: Mapping[str, str]) -> Any:
    if isinstance(part, str):
        return PLACE.sub(lambda found: values[found[1]], part)
    if isinstance(part, dict):
        return {_filled(key, values): _filled(inner, values) for key, inner in part.items()}
    return [_filled(inner, values) for inner in part] if isinstance(part, list) else part


def rules(
    table: Mapping[str, Any], family: str, runbooks: str = RUNBOOKS, dashboards: str = DASHBOARDS
) -> dict[str, Any]:
    """Return a table as a file of rules.

    The runbook of an alert is the heading of its name in its family's page below `runbooks`, its dashboard the one that
    it or its table names, below `dashboards`.
    """
    records = [{"record": entry["record"], "expr": entry["expr"].strip()} for entry in table["records"]]
    alerts = [
        _rule(
            entry,
            dashboard=f"{dashboards.rstrip('/')}/{entry.get('dashboard', table['dashboard'])}",
            runbook_url=f"{runbooks.rstrip('/')}/{family}.md#{entry['alert'].lower()}",
        )
        for entry in table["alerts"]
    ]
    return {"groups": [{"name": family, "rules": records + alerts}]}


# What stands in an expression and is no metric: text, matchers, windows, lists of labels, functions, words, numbers.
ASIDE = re.compile(
    r"""'[^']*'|"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"""
)
WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "inf", "nan"}
NAME = re.compile(r"(?<![\w.:])([a-zA-Z_:][\w:]*)\b(?!\s*\()")


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    bare = ASIDE.sub(" ", re.sub(r"\{[^}]*\}", lambda found: re.sub(r'"[^"]*"', "", found[0]), expression))
    return {name for name in NAME.findall(bare) if name.lower() not in WORDS}


def _rule(entry: Entry, **links: str) -> Rule:
    annotations = {name: " ".join(entry[name].split()) for name in ("summary", "description")}
    return {
        "alert": entry["alert"],
        "expr": entry["expr"].strip(),
        **({"for": entry["for"]} if "for" in entry else {}),
        "labels": {"severity": entry["severity"]},
        "annotations": {**annotations, **links},
    }
