"""`python -m drills`: break the platform; look for what was acknowledged and for who was told. See docs/drills.md."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster_access import ClusterUnreachableError, state_directory
from controller import Inventory, ssh
from smoke_check import StepError

from bench.machine import describe_machine, sentence
from bench.report import write_dated, write_page
from drills import ROOT, alerts, rebuild, report
from drills.drill import Outcome, run
from drills.faults import FAULTS
from drills.installation import DrillError, installed

RECEIPTS = ROOT / ".cache" / "drills"
PAGE = ROOT / "docs" / "drills.md"
# The lab alone: its hosts can be stopped and started from here.
ENVIRONMENT = "local"
ROWS = 10_000
# Those of alerts, with a table of their own.
ALERTS = "alerts"
# Comes last, and takes the hosts of all others with it.
REBUILD = "rebuild"


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m drills", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*FAULTS, ALERTS, REBUILD], help="this one; again for more")
    parser.add_argument(
        "--fault", action="append", choices=[*alerts.rows()], help=f"of {ALERTS}: this one; again for more"
    )
    parser.add_argument("--rows", type=int, default=ROWS, help=f"acknowledged inserts in each drill (default: {ROWS})")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/drills.md")
    arguments = parser.parse_args(words)
    if arguments.rows < 100:
        parser.error(f"--rows: found {arguments.rows}, wanted at least 100, for example {ROWS}")
    if arguments.fault and ALERTS not in (arguments.only or [ALERTS]):
        parser.error(f"--fault: found it without {ALERTS}, wanted --only {ALERTS}")
    chosen = {*(arguments.only or FAULTS)} - {ALERTS, REBUILD}
    if arguments.write_docs and (chosen not in (set(), {*FAULTS}) or arguments.rows < ROWS):
        wanted = f"all those of Postgres with at least {ROWS} rows, or none of them"
        parser.error(f"--write-docs: found a part of the drills, wanted {wanted}")
    return arguments


def hosts_of(state: Path) -> dict[str, Any]:
    inventory = Inventory(ROOT / "inventories" / ENVIRONMENT)
    return {name: ssh(inventory.address(name), state) for name in inventory.hosts()}


def drill(faults: Sequence[str], rows: int) -> Iterator[Outcome]:
    """Those of Postgres, one after the other, in one installation."""
    state = state_directory(ENVIRONMENT)
    hosts = hosts_of(state)
    began = time.monotonic()
    with installed(state / "kubeconfig") as installation:
        print(f"drills: two members are in sync after {time.monotonic() - began:.0f} s", file=sys.stderr)
        for name in faults:
            began = time.monotonic()
            yield run(name, installation, hosts, rows)
            print(f"drills: {name} took {time.monotonic() - began:.0f} s", file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """0 when every row is where it should be (the control: when its loss was seen) and every alert arrived.

    1 otherwise. Aims only inform.
    """
    arguments = arguments_of(sys.argv[1:] if words is None else words)
    about = describe_machine()
    began = time.monotonic()
    # In the order of FAULTS: after the control the installation is an asynchronous one.
    wanted = [name for name in FAULTS if name in (arguments.only or FAULTS)]
    outcomes: list[Outcome] = []
    told: list[alerts.Outcome] = []
    rebuilt: list[rebuild.Outcome] = []
    broken = ""
    try:
        if wanted:
            for outcome in drill(wanted, arguments.rows):
                outcomes.append(outcome)
        if ALERTS in (arguments.only or [ALERTS]):
            state = state_directory(ENVIRONMENT)
            for found in alerts.run(arguments.fault or [*alerts.rows()], state, hosts_of(state)):
                told.append(found)
                print(f"drills: {found.row.fault}: {' | '.join(alerts.line(found)[2:])}", file=sys.stderr)
        if REBUILD in (arguments.only or [REBUILD]):
            rebuilt.append(rebuild.run(ENVIRONMENT))
    except (DrillError, ClusterUnreachableError, StepError) as error:
        broken = str(error)
    about["seconds"] = round(time.monotonic() - began)
    every: list[Outcome | alerts.Outcome | rebuild.Outcome] = [*outcomes, *told, *rebuilt]
    # Also of drills that came before one that broke off.
    document = {"machine": about, "drills": [outcome.receipt() for outcome in every], "broken": broken}
    receipt = write_dated(RECEIPTS, document)
    pages = {}
    if outcomes:
        pages["drills"] = f"{report.table(outcomes)}\n\n{report.total(outcomes)}"
    if told:
        # Of a part of them the page keeps the other lines.
        written = PAGE.read_text(encoding="utf-8") if arguments.write_docs else ""
        pages[f"drills --only {ALERTS}"] = alerts.merged(written, told)
    if rebuilt:
        pages[f"drills --only {REBUILD}"] = f"{rebuilt[0].table()}\n\n{rebuilt[0].total()}"
    print("\n\n".join(pages.values()))
    bad = sum(not outcome.good for outcome in every)
    print(f"\n{len(every)} drills, {bad} not as it should, {about['seconds']} s; receipt: {receipt.relative_to(ROOT)}")
    if broken:
        print(f"drills: {broken}", file=sys.stderr)
    elif arguments.write_docs:
        for program, page in pages.items():
            write_page(PAGE, f"{sentence(about)}\n\n{page}", program)
    return 1 if bad or broken else 0


if __name__ == "__main__":
    sys.exit(main())
