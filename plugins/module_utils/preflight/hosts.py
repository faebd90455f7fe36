"""Phase B: what the hosts are like. Facts come from one read-only shell script; the judgement is made here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .inventory import Inventory
from .mistake import Mistake, show

# Runs without Python and without root, and writes nothing. One `name value` pair on each line.
FACTS_SCRIPT = r"""
LC_ALL=C; export LC_ALL
if [ -r /etc/os-release ]; then . /etc/os-release; fi
echo "os ${ID:-unknown} ${VERSION_ID:-unknown}"
echo "arch $(uname -m)"
echo "clock $(date +%s.%N)"
echo "cgroup $(stat -fc %T /sys/fs/cgroup 2>/dev/null)"
echo "init $(cat /proc/1/comm 2>/dev/null)"
while read -r key value unit; do
  if [ "$key" = MemTotal: ]; then echo "memory_kib $value"; fi
done </proc/meminfo
echo "disk_free_kib $(df -Pk /var/lib 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "$free"; })"
echo "inodes_free $(df -Pi /var/lib 2>/dev/null | { read -r _; read -r _ _ _ free _; echo "$free"; })"
point=$(df -Pk /var/lib 2>/dev/null | { read -r _; read -r _ _ _ _ _ point; echo "$point"; })
while read -r _ path _ options _; do
  if [ "$path" = "$point" ]; then found=$options; fi
done </proc/mounts
echo "mount_options ${found:-}"
python=$(command -v python3 || true)
echo "python $([ -z "$python" ] || "$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
""".strip()  # Ansible appends `; sleep 0`, which must not begin a line
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
SSH_REASON = re.compile(
    r"Permission denied[^\n]*|Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|"
    r"Could not resolve hostname[^\n:]*|Connection refused|Connection timed out|No route to host|timed out|"
    r"Network is unreachable|Connection closed|Bad owner or permissions[^\n]*|Identity file[^\n]*not accessible"
)


@dataclass
class Facts:
    reached: bool
    reason: str = ""
    root: bool = False
    root_reason: str = ""
    clock_offset: float = 0.0  # seconds ahead of the controller
    clock_margin: float = 0.0  # half of the time that asking took
    values: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        text = self.values.get(name, "")
        return int(text) if text.isdigit() else None


def parse(output: str) -> dict[str, str]:
    pairs = (line.strip().partition(" ") for line in output.splitlines())
    return {name: value.strip() for name, _, value in pairs if name}


def ssh_reason(message: str) -> str:
    found = SSH_REASON.search(message)
    return found.group(0).strip() if found else "no answer over SSH"


def check(
    inventory: Inventory, facts: Mapping[str, Facts], wanted: Mapping[str, Any], allow_cgroup_v1: Mapping[str, bool]
) -> Iterator[Mistake]:
    """`wanted` holds the supported systems and the minimum sizes of the profile (roles/preflight/vars/main.yml)."""
    for host in inventory.hosts():
        place = inventory.place(host)
        fact = facts.get(host, Facts(reached=False, reason="no answer"))
        for what, found, want, example in host_findings(
            inventory, host, fact, wanted, allow_cgroup_v1.get(host, False)
        ):
            yield Mistake(place, f"{host} {what}", found, want, example)
    yield from clock_mistakes(inventory, facts, float(wanted["clock_skew_seconds"]))


Finding = tuple[str, str, str, str]


def host_findings(
    inventory: Inventory, host: str, facts: Facts, wanted: Mapping[str, Any], allow_cgroup_v1: bool
) -> Iterator[Finding]:
    variables = inventory.variables.get(host, {})
    user = str(variables["ansible_user"].value) if "ansible_user" in variables else "ops"
    if not facts.reached:
        address = inventory.host_value(host).value
        yield "connection", show(facts.reason, ""), f"an SSH login as {user}", f"ssh {user}@{address} true"
        return
    if not facts.root:
        yield (
            "sudo",
            show(facts.root_reason or "no root rights", ""),
            f"sudo without a password for {user}",
            f"/etc/sudoers.d/{user}: {user} ALL=(ALL) NOPASSWD: ALL",
        )
    yield from system_findings(facts, wanted, allow_cgroup_v1)
    yield from size_findings(facts, wanted)


def system_findings(facts: Facts, wanted: Mapping[str, Any], allow_cgroup_v1: bool) -> Iterator[Finding]:
    values = facts.values
    systems = [f"{name} {version}" for name, versions in wanted["systems"].items() for version in versions]
    system = values.get("os", "unknown")
    if system not in systems:
        yield "operating system", system, "one of " + ", ".join(systems), systems[0]
    machine = values.get("arch", "unknown")
    if ARCHITECTURES.get(machine) not in wanted["architectures"]:
        yield "architecture", machine, "one of " + ", ".join(wanted["architectures"]), wanted["architectures"][0]
    if values.get("init", "systemd") != "systemd":
        yield "init", values["init"], "systemd as process 1", "systemd"
    if values.get("cgroup") != "cgroup2fs" and not allow_cgroup_v1:
        yield (
            "cgroups",
            "version 1",
            "version 2 (Kubernetes 1.35 and newer refuse version 1)",
            "systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
        )
    minimum = str(wanted["python"])
    python = values.get("python", "")
    if not python:
        yield "python", "none", f"python3 {minimum} or newer", "apt-get install python3"
    elif version(python) < version(minimum):
        yield "python", python, f"python3 {minimum} or newer", "python3 of a supported operating system"
    options = values.get("mount_options", "").split(",")
    for option in ("ro", "noexec"):
        if option in options:
            yield (
                "/var/lib",
                f"it mounted {option}",
                "a file system to write and to run programs",
                "mount option rw,exec",
            )


def size_findings(facts: Facts, wanted: Mapping[str, Any]) -> Iterator[Finding]:
    sizes = wanted["minimum"]
    for name, what, key in (
        ("memory_kib", "memory", "memory_mib"),
        ("disk_free_kib", "free disk at /var/lib", "disk_mib"),
    ):
        found, minimum = facts.number(name), int(sizes[key])
        if found is None:
            yield what, "no answer", f"at least {minimum} MiB", f"{minimum} MiB"
        # A machine sold as 2 GiB shows a little less, the kernel keeps some.
        elif found / 1024 < minimum * 0.95:
            yield what, f"{found // 1024} MiB", f"at least {minimum} MiB", f"{minimum} MiB"
    inodes = facts.number("inodes_free")
    if inodes is not None and 0 < inodes < int(sizes["inodes"]):
        yield "free inodes at /var/lib", str(inodes), f"at least {sizes['inodes']}", str(sizes["inodes"])


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def clock_mistakes(inventory: Inventory, facts: Mapping[str, Facts], limit: float) -> Iterator[Mistake]:
    """Hosts are compared with the one in the middle, so that one wrong clock is one line, and not the controller's."""
    known = sorted((fact.clock_offset, host) for host, fact in facts.items() if fact.reached and "clock" in fact.values)
    if len(known) < 2:
        return
    middle = known[(len(known) - 1) // 2][0]
    for offset, host in sorted(known, key=lambda pair: pair[1]):
        difference = offset - middle
        if abs(difference) - facts[host].clock_margin > limit:
            side = "ahead of" if difference > 0 else "behind"
            yield Mistake(
                inventory.place(host),
                f"{host} clock",
                f"{abs(difference):.0f} s {side} the other hosts",
                f"at most {limit:g} s between hosts",
                "timedatectl set-ntp true",
            )
