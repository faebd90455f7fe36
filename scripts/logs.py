"""Follow the logs of all pods of a service.

python scripts/logs.py SERVICE [--environment local] [--lines 20] [--no-follow]
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins" / "module_utils"))

from cluster_access import Cluster, ClusterUnreachableError, connect

NAME = "app.kubernetes.io/name"


def follow(cluster: Cluster, namespace: str, pod: str, container: str, lines: int, stay: bool) -> None:
    """Print a pod's log, each line behind the pod's name; with `stay` until the pod ends."""
    for line in cluster.logs(namespace, pod, container, lines, stay):
        print(f"{pod} {line}", flush=True)


def main(arguments: list[str]) -> int:
    """Find the service's pods and print their logs; return the exit code."""
    parser = argparse.ArgumentParser(prog="logs")
    parser.add_argument("service", help="for example: api")
    parser.add_argument("--environment", default="local", help="which of inventories/ (default: local)")
    parser.add_argument("--lines", type=int, default=20, help="how many lines of the past (default: 20)")
    parser.add_argument("--no-follow", action="store_true", help="print and end")
    options = parser.parse_args(arguments)
    try:
        cluster = connect(options.environment)
        pods = cluster.items("/api/v1/pods")
    except ClusterUnreachableError as error:
        print(f"logs: {error}", file=sys.stderr)
        return 2
    names = {p["metadata"].get("labels", {}).get(NAME, "") for p in pods} - {""}
    chosen = [p for p in pods if p["metadata"].get("labels", {}).get(NAME) == options.service]
    if not chosen:
        wanted = ", ".join(sorted(names)) or "a service, but nothing runs"
        print(f"logs: found SERVICE={options.service!r}, wanted one of: {wanted}", file=sys.stderr)
        return 2
    threads = [
        threading.Thread(
            target=follow,
            args=(
                cluster,
                p["metadata"]["namespace"],
                p["metadata"]["name"],
                container["name"],
                options.lines,
                not options.no_follow,
            ),
            daemon=True,
        )
        for p in chosen
        for container in p["spec"]["containers"]
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
