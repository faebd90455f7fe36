"""`python -m bench`: measure, print one table, write a receipt. See docs/benchmarks.md."""

import argparse
import logging
import pstats
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import structlog

from bench import ROOT, report, scenarios
from bench.machine import describe_machine, sentence
from bench.platform import SERVICES, platform
from bench.processes import Cores
from bench.users import prepare

RECEIPTS = ROOT / ".cache" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"
# Seconds for everything, with the start and the end of all servers; then the bench ends itself and says so.
LIMIT_SECONDS = 360
QUICK_LIMIT_SECONDS = 90
# Above this share of all cores in use by others, times are theirs as much as ours.
BUSY_SHARE = 0.1
PROFILE_LINES = 40


class TooLongError(SystemExit):
    """The time is up. An event loop would log any other kind of exception, and go on."""


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """TooLongError after `seconds`, and SystemExit at SIGTERM: in both cases everything that was started is ended."""

    def too_long(_: int, __: FrameType | None) -> NoReturn:
        raise TooLongError

    def terminated(_: int, __: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = {signal.SIGALRM: signal.signal(signal.SIGALRM, too_long)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminated)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, rougher: under 90 s instead of 6 minutes")
    parser.add_argument("--only", action="append", choices=list(scenarios.GROUPS), help="these groups of rows; again")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--profile", choices=SERVICES, help="no table, but what costs most in one service")
    arguments = parser.parse_args(words)
    if arguments.write_docs and (arguments.only or arguments.profile or arguments.quick):
        parser.error("--write-docs: found a part of the bench, wanted all of it (no --quick, --only, --profile)")
    return arguments


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[list[report.Row], dict[str, Any]]:
    plan = scenarios.QUICK if arguments.quick else scenarios.FULL
    rows: list[report.Row] = []
    with platform(Cores.of_this_machine(), folder) as running:
        bench = scenarios.Bench(running, prepare(running), plan)
        for name in arguments.only or scenarios.GROUPS:
            started = time.monotonic()
            rows += scenarios.GROUPS[name](bench)
            print(f"bench: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows, bench.raw


def show_profile(arguments: argparse.Namespace, folder: Path) -> None:
    """What one service does with its time; the profiler's own is in it, so only the shares mean something."""
    plan = scenarios.QUICK if arguments.quick else scenarios.FULL
    with platform(Cores.of_this_machine(), folder, profile=arguments.profile) as running:
        requests = scenarios.profile(scenarios.Bench(running, prepare(running), plan), arguments.profile)
    statistics = pstats.Stats(str(folder / f"{arguments.profile}.prof"), stream=sys.stdout)
    print(f"{requests} requests")
    statistics.strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    statistics.sort_stats("cumulative").print_stats(PROFILE_LINES)


def main(words: Sequence[str] | None = None) -> int:
    """0 when everything could be measured, also when goals are missed: the table says so; 1 otherwise."""
    arguments = arguments_of(sys.argv[1:] if words is None else words)
    # Schemas are brought up to date in this process, by code that logs.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    about = describe_machine()
    if about["busy_before"] > BUSY_SHARE:
        print(
            f"bench: others use {about['busy_before']:.0%} of this machine: times will be theirs too", file=sys.stderr
        )
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    limit = QUICK_LIMIT_SECONDS if arguments.quick else LIMIT_SECONDS
    started = time.monotonic()
    try:
        with bounded(limit):
            if arguments.profile:
                show_profile(arguments, folder)
                return 0
            rows, raw = measure(arguments, folder)
    except TooLongError:
        print(f"bench: not done after {limit} s, ended", file=sys.stderr)
        return 1
    except (RuntimeError, LookupError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about["seconds"] = round(time.monotonic() - started)
    receipt = report.write_receipt(RECEIPTS, rows, machine=about, raw=raw)
    table = report.table(rows)
    missed = sum(row.met is False for row in rows)
    print(table)
    print(f"\n{len(rows)} rows, {missed} goals missed, {about['seconds']} s; receipt: {receipt.relative_to(ROOT)}")
    if arguments.write_docs:
        report.write_page(PAGE, f"{sentence(about)}\n\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
