"""What the writers noted against what the database holds. Pure: no clocks, no processes, no network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from drills.writer import FAILED, OK, UNKNOWN

Key = tuple[int, int]  # writer, seq


@dataclass(frozen=True)
class Attempt:
    """One insert. `time` is the time of day, `clock` the writers' steady clock, both in seconds, of the outcome."""

    writer: int
    seq: int
    outcome: str
    why: str
    time: float
    clock: float

    @property
    def key(self) -> Key:
        return self.writer, self.seq


@dataclass(frozen=True)
class Gap:
    """The time between two acknowledged inserts; `until` is the time of day of the second one."""

    seconds: float
    until: float


@dataclass(frozen=True)
class Verdict:
    """Keys that are not as they should be. Nothing in any of them: no write was lost and none invented."""

    lost: list[Key] = field(default_factory=list)
    phantom: list[Key] = field(default_factory=list)
    duplicate: list[Key] = field(default_factory=list)
    disordered: list[Key] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.phantom or self.duplicate or self.disordered)


@dataclass(frozen=True)
class History:
    """All attempts in the order of the log; `ended` is the time and the clock of its last line, if it was not cut."""

    attempts: Sequence[Attempt]
    ended: tuple[float, float] | None = None

    @classmethod
    def parse(cls, text: str) -> History:
        """A log of the writers. A last line without its end was cut off and does not count; ValueError for others."""
        attempts, ended = [], None
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                fields = json.loads(line)
                if ended:
                    raise ValueError("it comes after the end")
                if fields.get("ended"):
                    ended = float(fields["time"]), float(fields["clock"])
                else:
                    attempts.append(_attempt(**fields))
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise ValueError(
                    f"line {number} of the log: found {line[:80]!r}, wanted an attempt ({error})"
                ) from None
        return cls(attempts, ended)

    def count(self, outcome: str) -> int:
        return sum(attempt.outcome == outcome for attempt in self.attempts)

    def reasons(self) -> dict[str, int]:
        """Why inserts were not acknowledged, and how often."""
        return dict(Counter(f"{a.outcome}: {a.why}" for a in self.attempts if a.outcome != OK).most_common())

    def check(self, rows: Sequence[Key]) -> Verdict:
        """`rows` are the keys that a member holds, in the order in which they were inserted."""
        acknowledged = {attempt.key for attempt in self.attempts if attempt.outcome == OK}
        explained = acknowledged | {attempt.key for attempt in self.attempts if attempt.outcome == UNKNOWN}
        present = Counter(rows)
        if not self.ended:
            explained |= present.keys() & self._under_way(writer for writer, _ in present)
        return Verdict(
            lost=sorted(acknowledged - present.keys()),
            phantom=sorted(present.keys() - explained),
            duplicate=sorted(key for key, times in present.items() if times > 1),
            disordered=list(_disordered(key for key in rows if key in acknowledged)),
        )

    def _under_way(self, writers: Iterable[int]) -> set[Key]:
        """Writers that died had one insert each of which they noted nothing: the one after the last that they noted."""
        last = dict.fromkeys(writers, 0)
        for attempt in self.attempts:
            last[attempt.writer] = max(attempt.seq, last.get(attempt.writer, 0))
        return {(writer, seq + 1) for writer, seq in last.items()}

    def longest_gap(self) -> Gap:
        """Between two acknowledged inserts of whichever writer, and from the last one to the end."""
        moments = sorted((a.clock, a.time) for a in self.attempts if a.outcome == OK)
        if not moments:
            raise ValueError("found no acknowledged insert, wanted some")
        if self.ended:
            moments.append((self.ended[1], self.ended[0]))
        gaps = [Gap(after[0] - before[0], after[1]) for before, after in pairwise(moments)]
        return max(gaps, key=lambda gap: gap.seconds, default=Gap(0.0, moments[0][1]))


def recovery_seconds(gap: Gap, injected: float) -> float:
    """From the fault (time of day) to the first acknowledged insert after the gap; 0 if the gap was over before."""
    return max(0.0, gap.until - injected)


def _attempt(writer: int, seq: int, outcome: str, why: str, time: float, clock: float) -> Attempt:
    if outcome not in (OK, FAILED, UNKNOWN):
        raise ValueError(f"unknown outcome {outcome!r}")
    return Attempt(int(writer), int(seq), outcome, str(why), float(time), float(clock))


def _disordered(keys: Iterable[Key]) -> Iterable[Key]:
    """A writer waits for each answer: what it got acknowledged later was inserted later."""
    highest: dict[int, int] = {}
    for writer, seq in keys:
        if seq < highest.get(writer, 0):
            yield writer, seq
        highest[writer] = max(seq, highest.get(writer, 0))
