"""Say whether the lab's hosts are resumed or made anew, and why.

    python molecule/lab/state.py [--json] [HOST ...]

Without hosts it takes those of inventories/local. A lab is resumed whole or made anew whole: hosts of this checkout
that are all there, answer, and can be logged in to are resumed; everything else is removed and made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LABEL = "slipway_checkout"
PREFIX = "slipway-"


@dataclass(frozen=True)
class Decision:
    """What happens to the lab: the line that says so, whether hosts are made, and the images of those there are."""

    line: str
    rebuild: bool
    images: list[str]


def decide(
    containers: list[dict[str, Any]], hosts: list[str], checkout: str, silent: list[str], can_log_in: bool
) -> Decision:
    """Compare the containers that bear the lab's label with what this checkout wants.

    `silent` names the hosts whose systemd does not answer; `can_log_in`: the lab's SSH key and host keys are there.
    """
    labels = [container["Labels"] for container in containers]
    names = sorted(name for container in containers for name in container["Names"])
    problem = ""
    if not containers:
        problem = "there is none"
    elif {label[LABEL] for label in labels} != {checkout}:
        problem = "it was left by another checkout"
    elif names != sorted(PREFIX + host for host in hosts):
        problem = "its hosts are not those of the inventory"
    elif silent:
        problem = f"{', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer"
    elif not can_log_in:
        problem = "it was left half made"
    line = (
        f"Lab: creating {len(hosts)} fresh hosts, caches stay ({problem})"
        if problem
        else f"Lab: resuming {len(hosts)} hosts of this checkout"
    )
    return Decision(line, bool(problem), sorted({label["slipway_image"] for label in labels}))


def inventory_hosts() -> list[str]:
    """Return the hosts of inventories/local."""
    listed = subprocess.run(
        ["ansible-inventory", "-i", str(ROOT / "inventories" / "local"), "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(json.loads(listed.stdout)["_meta"]["hostvars"])


def silent_hosts(containers: list[dict[str, Any]], hosts: list[str]) -> list[str]:
    """Return the hosts that have a container whose systemd does not say that it runs."""
    there = {name for container in containers for name in container["Names"]}
    silent = []
    for host in hosts:
        if PREFIX + host not in there:
            continue
        asked = subprocess.run(
            ["podman", "exec", PREFIX + host, "systemctl", "is-system-running"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() not in ("running", "degraded"):
            silent.append(host)
    return silent


def main(arguments: list[str]) -> int:
    """Print the decision, as a line or as JSON."""
    parser = argparse.ArgumentParser(prog="state")
    parser.add_argument("hosts", nargs="*", metavar="HOST")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--state-dir", type=Path, help="default: ~/.local/state/slipway/local")
    options = parser.parse_args(arguments)
    base = Path(os.environ.get("SLIPWAY_STATE") or "~/.local/state/slipway").expanduser()
    state_directory = options.state_dir or base / "local"
    hosts = options.hosts or inventory_hosts()
    listed = subprocess.run(
        ["podman", "ps", "--all", "--filter", f"label={LABEL}", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    containers = json.loads(listed.stdout)
    decision = decide(
        containers,
        hosts,
        (ROOT / ".cache" / "checkout-id").read_text().strip(),
        silent_hosts(containers, hosts),
        (state_directory / "ssh" / "known_hosts").exists(),
    )
    print(json.dumps(asdict(decision)) if options.json else decision.line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
