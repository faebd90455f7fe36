"""The checker of the drills: one that overlooks a loss looks exactly like a database that has none."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import drills.__main__ as main
from drills import report, writer
from drills.drill import Outcome
from drills.history import Attempt, Gap, History, Key, Verdict, recovery_seconds
from drills.members import named, trouble

OUTCOMES = (writer.OK, writer.FAILED, writer.UNKNOWN)


def history(*outcomes: str, ended: bool = True, number: int = 1) -> History:
    """One writer's attempts, one a second, from second 101 of the day and second 1 of its clock on."""
    attempts = [Attempt(number, seq, what, "", 100.0 + seq, float(seq)) for seq, what in enumerate(outcomes, 1)]
    last = len(attempts)
    return History(attempts, (100.5 + last, last + 0.5) if ended else None)


def keys(*sequence: int, number: int = 1) -> list[Key]:
    return [(number, seq) for seq in sequence]


# --- what is lost, and what is not


def test_all_that_was_acknowledged_is_there() -> None:
    assert history("ok", "ok", "ok").check(keys(1, 2, 3)) == Verdict()


def test_an_acknowledged_write_that_is_missing_is_lost() -> None:
    verdict = history("ok", "ok", "ok").check(keys(1, 3))
    assert (verdict, verdict.good) == (Verdict(lost=keys(2)), False)


def test_the_unknown_may_be_there_or_not() -> None:
    assert history("ok", "unknown", "ok").check(keys(1, 3)).good
    assert history("ok", "unknown", "ok").check(keys(1, 2, 3)).good


def test_what_was_refused_or_never_sent_is_a_phantom() -> None:
    assert history("ok", "failed", "ok").check(keys(1, 2, 3)) == Verdict(phantom=keys(2))
    assert history("ok").check([*keys(1), (7, 1)]) == Verdict(phantom=[(7, 1)])
    assert history("ok").check(keys(1, 2)) == Verdict(phantom=keys(2))


def test_a_log_that_was_cut_off_leaves_one_insert_of_each_writer_unexplained() -> None:
    cut = history("ok", ended=False)
    assert cut.check([*keys(1, 2), (7, 1)]).good
    assert cut.check([*keys(1, 2, 3), (7, 2)]) == Verdict(phantom=[(1, 3), (7, 2)])


def test_a_row_twice_is_a_duplicate() -> None:
    assert history("ok", "unknown").check(keys(1, 2, 2)).duplicate == keys(2)


def test_what_was_acknowledged_later_was_inserted_later() -> None:
    assert history("ok", "ok", "ok").check(keys(1, 3, 2)).disordered == keys(2)
    # A late statement of a connection that was given up may come after the next one.
    assert history("ok", "unknown", "ok").check(keys(1, 3, 2)).good


histories = st.lists(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=12), min_size=1, max_size=4)


@given(histories, st.data())
def test_exactly_what_was_taken_away_is_lost(outcomes: list[list[str]], data: st.DataObject) -> None:
    attempts = [a for number, what in enumerate(outcomes) for a in history(*what, number=number).attempts]
    whole = History(attempts, (1000.0, 1000.0))
    acknowledged = [a.key for a in attempts if a.outcome == writer.OK]
    unknown = [a.key for a in attempts if a.outcome == writer.UNKNOWN and data.draw(st.booleans())]
    gone = set(data.draw(st.lists(st.sampled_from(acknowledged), unique=True))) if acknowledged else set()
    present = [key for key in acknowledged if key not in gone] + unknown
    assert whole.check(present) == Verdict(lost=sorted(gone))


@given(histories, st.data())
def test_exactly_what_was_invented_is_a_phantom(outcomes: list[list[str]], data: st.DataObject) -> None:
    attempts = [a for number, what in enumerate(outcomes) for a in history(*what, number=number).attempts]
    whole = History(attempts, (1000.0, 1000.0))
    refused = [a.key for a in attempts if a.outcome == writer.FAILED]
    strange = [*refused, (99, 1), (0, 99)]
    invented = data.draw(st.lists(st.sampled_from(strange), unique=True))
    present = [a.key for a in attempts if a.outcome == writer.OK] + invented
    assert whole.check(present) == Verdict(phantom=sorted(invented))


# --- how long nothing was acknowledged


def test_the_gap_is_the_longest_time_between_two_acknowledged_writes() -> None:
    assert history("ok", "ok", "failed", "unknown", "ok", "ok").longest_gap() == Gap(3.0, 105.0)


def test_writes_that_never_come_back_are_a_gap_until_the_end() -> None:
    assert history("ok", "failed", "failed").longest_gap() == Gap(2.5, 103.5)


def test_writers_share_a_gap() -> None:
    both = [*history("ok", "failed", "ok").attempts, *history("failed", "ok", "failed", number=2).attempts]
    assert History(both).longest_gap().seconds == 1.0


def test_a_clock_that_was_set_changes_no_gap() -> None:
    attempts = [Attempt(1, 1, "ok", "", 100.0, 1.0), Attempt(1, 2, "ok", "", 50.0, 1.5)]
    assert History(attempts).longest_gap().seconds == 0.5


def test_without_any_acknowledged_write_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="found no acknowledged insert"):
        history("failed").longest_gap()


def test_recovery_counts_from_the_fault() -> None:
    assert recovery_seconds(Gap(4.0, 110.0), injected=107.0) == 3.0
    assert recovery_seconds(Gap(4.0, 110.0), injected=111.0) == 0.0


# --- the log


def line(**changes: Any) -> str:
    return json.dumps({"writer": 1, "seq": 1, "outcome": "ok", "why": "", "time": 5.0, "clock": 1.0} | changes) + "\n"


def test_a_log_is_read_back() -> None:
    end = json.dumps({"ended": True, "time": 9.0, "clock": 4.0}) + "\n"
    read = History.parse(line() + line(seq=2, outcome="unknown", why="TimeoutError") + end)
    assert [a.key for a in read.attempts] == keys(1, 2)
    assert (read.count("ok"), read.count("unknown"), read.ended) == (1, 1, (9.0, 4.0))
    assert read.reasons() == {"unknown: TimeoutError": 1}


def test_a_line_that_was_cut_off_does_not_count() -> None:
    read = History.parse(line() + line(seq=2)[:-5])
    assert ([a.key for a in read.attempts], read.ended) == (keys(1), None)


@pytest.mark.parametrize(
    "text",
    [
        "not JSON\n",
        "[]\n",
        line(outcome="perhaps"),
        line(seq=None),
        line(more=1),
        '{"writer": 1}\n',
        '{"ended": true}\n',
        '{"ended": true, "time": 1, "clock": 1}\n' + line(),
    ],
)
def test_a_log_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d of the log: found .*, wanted an attempt"):
        History.parse(text)


# --- what an error says about the insert


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"), "failed"),
        (asyncpg.InsufficientPrivilegeError("no"), "failed"),
        (asyncpg.AdminShutdownError("terminating connection due to administrator command"), "unknown"),
        (asyncpg.CrashShutdownError("terminating connection because of crash"), "unknown"),
        (asyncpg.QueryCanceledError("canceled"), "unknown"),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), "unknown"),
        (asyncpg.StatementCompletionUnknownError("who knows"), "unknown"),
        (asyncpg.InternalServerError("oh"), "unknown"),
        (asyncpg.InterfaceError("connection is closed"), "unknown"),
        (asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"), "unknown"),
        (ConnectionResetError(), "unknown"),
        (TimeoutError(), "unknown"),
    ],
)
def test_only_a_refusal_of_the_server_is_a_failure(error: Exception, wanted: str) -> None:
    assert writer.outcome_of(error) == wanted


# --- when a drill may start, and what it says


def member(name: str, role: str, state: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "state": state, "timeline": 3, **more}


LEADER = member("postgres-0", "leader", "running")
STANDBY = member("postgres-1", "sync_standby", "streaming", lag=0)


def test_a_leader_and_a_standby_in_sync_may_be_drilled() -> None:
    assert trouble([STANDBY, LEADER], wanted=2, synchronous=True) == ""
    assert trouble([STANDBY | {"lag": 8}, LEADER], wanted=2, synchronous=True, at_rest=False) == ""
    replica = STANDBY | {"role": "replica"}
    assert trouble([LEADER, replica], wanted=2, synchronous=False) == ""
    assert named([STANDBY, LEADER], "leader") == "postgres-0"


@pytest.mark.parametrize(
    ("members", "synchronous"),
    [
        ([], True),
        ([LEADER], True),
        ([STANDBY], True),
        ([LEADER, LEADER], True),
        ([LEADER, STANDBY | {"role": "replica"}], True),
        ([LEADER, STANDBY], False),
        ([LEADER | {"state": "starting"}, STANDBY], True),
        ([LEADER, STANDBY | {"state": "running"}], True),
        ([LEADER, STANDBY | {"lag": 8}], True),
        ([LEADER, STANDBY | {"lag": "unknown"}], True),
        ([LEADER, STANDBY | {"timeline": 2}], True),
    ],
)
def test_all_others_are_told_why_not(members: list[dict[str, Any]], synchronous: bool) -> None:
    found = trouble(members, wanted=2, synchronous=synchronous)
    assert found.startswith("found ") and "; wanted " in found and "\n" not in found


def outcome(fault: str, history: History, *rows: Key) -> Outcome:
    everything = [attempt.key for attempt in history.attempts if attempt.outcome != writer.FAILED]
    verdicts = {"postgres-0": history.check(everything), "postgres-1": history.check(rows)}
    return Outcome(fault, history, verdicts, history.longest_gap(), 1.0, ("postgres-0", "postgres-1"))


def test_a_loss_on_one_member_is_a_loss() -> None:
    found = outcome("crash", history("ok", "unknown", "ok"), (1, 1))
    assert (found.lost, found.good) == (1, False)
    assert report.line(found)[-1] == "NO"
    assert found.receipt()["members"]["postgres-1"]["lost"] == {"count": 1, "first": [(1, 3)]}


def test_the_control_has_to_lose_and_nothing_else() -> None:
    assert outcome("control", history("ok", "ok"), (1, 1)).good
    assert not outcome("control", history("ok", "ok"), (1, 1), (1, 2)).good
    assert not outcome("control", history("ok", "ok"), (1, 1), (7, 7)).good


def test_a_missed_aim_stands_in_the_table_and_is_no_error() -> None:
    slow = outcome("crash", history("ok", *["failed"] * 30, "ok"), (1, 1), (1, 32))
    assert slow.verdicts["postgres-1"].good
    assert report.line(slow)[6:8] == ("31.0 s", "<= 10 s, MISSED")


def test_a_fault_that_nobody_noticed_needs_no_recovery() -> None:
    attempts = [Attempt(1, seq, "ok", "", 100 + seq / 2, seq / 2) for seq in (1, 2, 3)]
    calm = outcome("api", History(attempts), (1, 1), (1, 2), (1, 3))
    assert report.line(calm)[6:9] == ("0.5 s", "", "not away")
    assert report.line(outcome("api", history("ok", "failed", "ok"), (1, 1), (1, 3)))[6:9] == ("2.0 s", "", "1.0 s")


def test_the_total_leaves_out_the_control() -> None:
    drills = [
        outcome("crash", history("ok", "unknown", "ok"), (1, 1), (1, 3)),
        outcome("node", history("ok", "ok", "ok"), (1, 1), (1, 2)),
        outcome("control", history("ok", "ok"), (1, 1)),
    ]
    assert report.total(drills) == "5 rows acknowledged with synchronous replication, 1 lost."


def test_each_fault_may_be_asked_for_by_name() -> None:
    assert main.arguments_of([]).rows >= 10_000
    assert main.arguments_of(["--only", "crash", "--only", "control", "--rows", "1000"]).only == ["crash", "control"]
    for words in (["--only", "nothing"], ["--rows", "1"], ["--write-docs", "--rows", "100"]):
        with pytest.raises(SystemExit):
            main.arguments_of(words)
