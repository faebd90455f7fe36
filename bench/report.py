"""Rows with a goal, what was measured, and whether that meets it; as a table, a receipt, and the page of the docs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- bench: written by `python -m bench --write-docs` -->", "<!-- end of bench -->"


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
    cells = [_HEADER, *((row.measure, row.goal, row.shown, row.beside, _VERDICT[row.met]) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_receipt(folder: Path, rows: Sequence[Row], *, machine: Mapping[str, Any], raw: Mapping[str, Any]) -> Path:
    """A JSON file with everything that was measured, named by the time. Missing values are null."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}.json"
    document = {
        "written_at": now.isoformat(timespec="seconds"),
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
    path.write_text(json.dumps(document, indent=2, default=str) + "\n")
    return path


def write_page(page: Path, content: str) -> None:
    """Replace what stands between the marks; ValueError when the page has none."""
    text = page.read_text()
    head, found, rest = text.partition(BEGIN)
    _, found_end, tail = rest.partition(END)
    if not found or not found_end:
        raise ValueError(f"{page}: found no {BEGIN if not found else END}, wanted the place for the table")
    page.write_text(f"{head}{BEGIN}\n\n{content}\n\n{END}{tail}")
