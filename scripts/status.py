"""Print what a platform is like: nodes, workloads, error budgets, backups, certificates, open alerts.

    python scripts/status.py [--environment local]

Prometheus and Alertmanager are asked by way of the API server. What somebody does not tell is a line with the reason.
Exits 0 when everything is ready and no critical alert is open, 1 when something is not or somebody does not tell, 2
when the cluster cannot be asked. Alerts that are silenced, or part of a worse one, do not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins" / "module_utils"))

import kube_reason
import status_text
from cluster_access import Cluster, ClusterUnreachableError, RefusedError, connect
from platform_status import Ask, SilentError, gather

NAMESPACE = "monitoring"


def served_by(api: Cluster, name: str, service: str, port: int) -> Ask:
    """Return a function that asks a Service for JSON, by way of the API server."""

    def ask(path: str) -> Any:
        try:
            return api.proxied(NAMESPACE, service, port, path)
        except RefusedError as error:
            raise SilentError(f"{name} does not answer: {error.reason}") from None
        except ValueError:
            raise SilentError(f"{name} answers with something that is no JSON") from None

    return ask


def main(arguments: list[str]) -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(prog="status")
    parser.add_argument("--environment", default="local", help="which of inventories/ (default: local)")
    try:
        api = connect(parser.parse_args(arguments).environment)
        pods = kube_reason.unready(api.items("/api/v1/pods"))
        status = gather(
            api.get,
            served_by(api, "Prometheus", "prometheus", 9090),
            served_by(api, "Alertmanager", "alertmanager", 9093),
            time.time(),
        )
    except ClusterUnreachableError as error:
        print(f"status: {error}", file=sys.stderr)
        return 2
    print(*status_text.lines(status, [kube_reason.describe_pod(pod) for pod in pods]), sep="\n")
    return 1 if status.wrong() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
