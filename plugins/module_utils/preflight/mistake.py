"""One mistake is one line: where it stands, what was found, what is wanted, an example to copy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LONGEST = 60
SECRET_NAME = re.compile(r"passw|passphrase|secret|token|private|credential|(^|[._-])key($|[._\[-])", re.IGNORECASE)
USER_INFO = re.compile(r"//[^/@\s]+@")


@dataclass(frozen=True, order=True)
class Mistake:
    where: str
    path: str
    found: str
    wanted: str
    example: str

    def __str__(self) -> str:
        line = f"{self.where}: {self.path}: found {self.found}, wanted {self.wanted}, for example {self.example}"
        return one_line(line)


def one_line(text: str) -> str:
    """Control characters would let a value forge a second line or colour the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def is_secret(path: str) -> bool:
    return SECRET_NAME.search(path) is not None


def show(value: Any, path: str, secret: bool = False) -> str:
    """What was found, in YAML's words; the contents of maps, lists and secrets stay hidden."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return "a map" if value else "an empty map"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if secret or is_secret(path):
        return "a hidden value"
    if isinstance(value, str):
        text = USER_INFO.sub("//***@", value)
        if len(text) > LONGEST:
            text = text[:LONGEST] + "..."
        return json.dumps(one_line(text), ensure_ascii=False)
    return as_yaml(value)


def as_yaml(value: Any) -> str:
    """A value as it is typed into a YAML file, on one line."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./:-]*|\d+\.\d+\.\d+\.\d+(/\d+)?|\d+[A-Z][a-z]?", value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def in_order(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """By file and line, so that a user can go through a file from top to bottom."""

    def key(mistake: Mistake) -> tuple[str, int, str]:
        place, _, line = mistake.where.rpartition(":")
        return (place, int(line), mistake.path) if line.isdigit() else (mistake.where, 0, mistake.path)

    return sorted(mistakes, key=key)


def summary(count: int) -> str:
    return f"preflight found {count} mistake{'' if count == 1 else 's'}; nothing was changed on any host"
