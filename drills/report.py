"""The table of the drills: one line for each fault."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import markdown
from drills.drill import Outcome
from drills.faults import FAULTS
from drills.writer import FAILED, OK, UNKNOWN

HEADER = (
    "fault",
    "ok",
    "failed",
    "unknown",
    "lost",
    "other",
    "write gap",
    "aim",
    "back after",
    "leader",
    "as it should",
)
# Shorter gaps come and go on a machine that does other things too: the fault was not noticed.
NOTICED_SECONDS = 1
_VERDICT = {True: "yes", False: "NO"}


def line(outcome: Outcome) -> tuple[str, ...]:
    """`as it should` is about the rows alone: a missed aim is no error, it stands beside its gap."""
    fault, history = FAULTS[outcome.fault], outcome.history
    aim = "" if fault.gap_seconds is None else f"<= {fault.gap_seconds:g} s"
    if fault.gap_seconds is not None and outcome.gap.seconds > fault.gap_seconds:
        aim += ", MISSED"
    return (
        fault.title,
        *(str(history.count(kind)) for kind in (OK, FAILED, UNKNOWN)),
        str(outcome.lost),
        str(outcome.wrong),
        f"{outcome.gap.seconds:.1f} s",
        aim,
        f"{outcome.recovery_seconds:.1f} s" if outcome.gap.seconds >= NOTICED_SECONDS else "not away",
        "another" if outcome.leaders[0] != outcome.leaders[1] else "the same",
        _VERDICT[outcome.good],
    )


def table(outcomes: Sequence[Outcome]) -> str:
    return markdown(HEADER, [line(outcome) for outcome in outcomes])


def total(outcomes: Sequence[Outcome]) -> str:
    """What all drills but the control add up to, which is there to lose something."""
    counted = [outcome for outcome in outcomes if FAULTS[outcome.fault].synchronous]
    acknowledged = sum(outcome.history.count(OK) for outcome in counted)
    return f"{acknowledged} rows acknowledged with synchronous replication, {sum(o.lost for o in counted)} lost."
