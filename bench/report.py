"""Rows with a goal, what was measured, and whether that meets it; as a table, a receipt, and the page of the docs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def marks(program: str) -> tuple[str, str]:
    """What stands around the table of a program in a page of the documentation."""
    return f"<!-- {program}: written by `python -m {program} --write-docs` -->", f"<!-- end of {program} -->"


BEGIN, END = marks("bench")


@dataclass(frozen=True)
class Row:
    """`met` is None where nobody set a goal. A goal is judged by the exact value, not by the shown one."""

    measure: str
    value: float
    unit: str
    goal: str = ""
    beside: str = ""
    met: bool | None = None

    @property
    def shown(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        text = number(self.value)
        if self.met is False and self.goal.endswith(f" {text} {self.unit}"):
            # Missed by a hair: rounding must not make it look met.
            text = f"{self.value:.4f}"
        return f"{text} {self.unit}"


def number(value: float) -> str:
    """As many digits as short runs can tell; a question mark for what could not be measured."""
    if math.isnan(value):
        return "?"
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def plain(measure: str, value: float, unit: str, *, beside: str = "") -> Row:
    return Row(measure, value, unit, beside=beside)


def at_most(measure: str, value: float, goal: float, unit: str, *, beside: str = "") -> Row:
    return Row(measure, value, unit, f"<= {number(goal)} {unit}", beside, value <= goal)


def below(measure: str, value: float, goal: float, unit: str, *, beside: str = "") -> Row:
    return Row(measure, value, unit, f"< {number(goal)} {unit}", beside, value < goal)


def at_least(measure: str, value: float, goal: float, unit: str, *, beside: str = "") -> Row:
    return Row(measure, value, unit, f">= {number(goal)} {unit}", beside, value >= goal)


_VERDICT = {True: "yes", False: "NO", None: ""}
_HEADER = ("measure", "goal", "measured", "beside it", "met")


def table(rows: Sequence[Row]) -> str:
    """One Markdown table whose columns also line up in a terminal."""
    return markdown(_HEADER, [(row.measure, row.goal, row.shown, row.beside, _VERDICT[row.met]) for row in rows])


def markdown(header: Sequence[str], content: Sequence[Sequence[str]]) -> str:
    """A Markdown table of any cells, padded so that its columns line up."""
    cells = [header, *content]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_receipt(folder: Path, rows: Sequence[Row], *, machine: Mapping[str, Any], raw: Mapping[str, Any]) -> Path:
    """A JSON file with everything that was measured, named by the time. Missing values are null."""
    document = {
        "machine": machine,
        "rows": [
            {
                "measure": row.measure,
                "value": None if math.isnan(row.value) else row.value,
                "unit": row.unit,
                "goal": row.goal,
                "beside": row.beside,
                "met": row.met,
            }
            for row in rows
        ],
        "raw": raw,
    }
    return write_dated(folder, document)


def write_dated(folder: Path, document: Mapping[str, Any]) -> Path:
    """A document as a JSON file that is named by the time."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(
        json.dumps({"written_at": now.isoformat(timespec="seconds"), **document}, indent=2, default=str) + "\n"
    )
    return path


def write_page(page: Path, content: str, program: str = "bench") -> None:
    """Replace what stands between the program's marks; ValueError when the page has none."""
    begin, end = marks(program)
    text = page.read_text()
    head, found, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page}: found no {begin if not found else end}, wanted the place for the table")
    page.write_text(f"{head}{begin}\n\n{content}\n\n{end}{tail}")
