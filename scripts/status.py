"""Print what runs on a platform and what does not: nodes, workloads, and the reason for each that is not ready.

    python scripts/status.py [--environment local]

Exits 0 when everything is ready, 1 when something is not, 2 when the cluster cannot be asked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins" / "module_utils"))

import kube_reason
from cluster_access import ClusterUnreachableError, connect

KINDS = ("Deployment", "StatefulSet", "DaemonSet")


def node_line(node: dict[str, Any]) -> tuple[bool, str]:
    """Return (ready, line) of a node object."""
    ready: dict[str, Any] = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), {})
    is_ready = ready.get("status") == "True"
    version = node["status"]["nodeInfo"]["kubeletVersion"]
    word = "Ready" if is_ready else f"NotReady: {ready.get('reason', 'it has never reported')}"
    return is_ready, f"  {node['metadata']['name']:28} {version:20} {word}"


def workload_line(kind: str, workload: dict[str, Any]) -> tuple[bool, str]:
    """Return (ready, line) of a Deployment, StatefulSet or DaemonSet object."""
    state = kube_reason.state(kind, workload)
    name = f"{workload['metadata']['namespace']}/{workload['metadata']['name']}"
    return state.ready, f"  {name:44} {kind:12} {state.missing or 'ready'}"


def main(arguments: list[str]) -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(prog="status")
    parser.add_argument("--environment", default="local", help="which of inventories/ (default: local)")
    try:
        api = connect(parser.parse_args(arguments).environment)
        nodes = [node_line(n) for n in api.items("/api/v1/nodes")]
        workloads = [workload_line(kind, w) for kind in KINDS for w in api.items(f"/apis/apps/v1/{kind.lower()}s")]
        pods = kube_reason.unready(api.items("/api/v1/pods"))
    except ClusterUnreachableError as error:
        print(f"status: {error}", file=sys.stderr)
        return 2
    print("Nodes", *[line for _, line in nodes], sep="\n")
    print("Workloads", *sorted(line for _, line in workloads), sep="\n")
    if pods:
        print("Pods that are not ready", *[f"  {kube_reason.describe_pod(p)}" for p in pods], sep="\n")
    bad = [line for ready, line in nodes + workloads if not ready]
    print(f"{len(nodes) + len(workloads) - len(bad)} ready, {len(bad)} not ready")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
