"""Print what a run could change on a host: path -> mode, owner, time of change and hash of the content, as JSON.

Sent to the hosts over standard input (python3 -), so that looking leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from pathlib import Path

ROOTS = ["/etc", "/usr/local", "/opt", "/root", "/home", "/srv", "/var/lib/rancher", "/var/lib/dpkg", "/var/spool/cron"]
# What lives by itself while a cluster runs, and what a login leaves.
VOLATILE = [
    "/var/lib/rancher/k3s/server/db",
    "/var/lib/rancher/k3s/agent/containerd",
    "/var/lib/rancher/k3s/agent/kubelet",
    "/var/lib/rancher/k3s/storage",
    "/home/ops/.ansible",
    "/root/.ansible",
]


def is_volatile(path: str) -> bool:
    return path.endswith(".log") or any(path == entry or path.startswith(entry + "/") for entry in VOLATILE)


def describe(path: str) -> str:
    status = os.lstat(path)
    facts = [oct(status.st_mode), str(status.st_uid), str(status.st_gid)]
    if stat.S_ISLNK(status.st_mode):
        facts.append(str(Path(path).readlink()))
    elif stat.S_ISREG(status.st_mode):
        digest = hashlib.sha256()
        with Path(path).open("rb") as handle:
            for block in iter(lambda: handle.read(1 << 20), b""):
                digest.update(block)
        facts += [str(status.st_mtime_ns), digest.hexdigest()]
    return " ".join(facts)


def tree(roots: list[str]) -> dict[str, str]:
    found = {}
    for root in roots:
        for directory, names, files in os.walk(root):
            names[:] = sorted(name for name in names if not is_volatile(f"{directory}/{name}"))
            for path in [directory, *(f"{directory}/{name}" for name in files)]:
                try:
                    if not is_volatile(path):
                        found[path] = describe(path)
                except FileNotFoundError:
                    continue
    return found


if __name__ == "__main__":
    json.dump(tree(sys.argv[1:] or ROOTS), sys.stdout)
