"""Phase B: what hosts are like is judged for all of them together, from facts that are only read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.preflight.conftest import BASE, MISTAKE, ROOT

# Stands in for ssh: the facts script gets the answer that the case has written for the address, everything else runs
# here with a sudo and an id of the test's own. Whatever else would be run on a host leaves a note.
SSH = """#!/bin/sh
for last; do case $last in 198.18.0.*) address=$last ;; esac; done
directory={directory}/$address
if [ ! -d "$directory" ]; then echo "ops@$address: Permission denied (publickey)." >&2; exit 255; fi
case $last in
  *os-release*) sed "s/CLOCK/$(date +%s.%N -d "$(cat "$directory/clock")")/" "$directory/facts" ;;
  *"id -u"*) PATH=$directory:$PATH sh -c "$last" ;;
  *true*) ;;
  *) echo "$last" >> {directory}/unexpected; exit 1 ;;
esac
"""
SUDO = """#!/bin/sh
while [ "$1" != /bin/sh ]; do shift; done
exec "$@"
"""
NO_SUDO = """#!/bin/sh
echo "sudo: a password is required" >&2
exit 1
"""
GOOD = {
    "os": "debian 13",
    "arch": "x86_64",
    "clock": "CLOCK",
    "cgroup": "cgroup2fs",
    "init": "systemd",
    "memory_kib": "16777216",
    "disk_free_kib": "104857600",
    "inodes_free": "5000000",
    "mount_options": "rw,relatime",
    "python": "3.13",
}


class Lab:
    """Three hosts that exist only in the answers of the stand-in for ssh."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for address in ("198.18.0.11", "198.18.0.21", "198.18.0.22"):
            self.host(address)

    def host(self, address: str, *, clock: str = "now", sudo: bool = True, **facts: str) -> None:
        home = self.directory / address
        home.mkdir(exist_ok=True)
        (home / "facts").write_text("".join(f"{name} {value}\n" for name, value in {**GOOD, **facts}.items()))
        (home / "clock").write_text(clock)
        for name, text in (("sudo", SUDO if sudo else NO_SUDO), ("id", "#!/bin/sh\necho 0\n")):
            (home / name).write_text(text)
            (home / name).chmod(0o755)

    def unreachable(self, address: str) -> None:
        home = self.directory / address
        home.rename(home.with_suffix(".gone"))

    def run(self) -> tuple[int, list[str], str]:
        inventory = self.directory / "inventory"
        (inventory / "group_vars").mkdir(parents=True)
        (inventory / "hosts.yml").write_text(BASE["hosts"])
        (inventory / "group_vars" / "all.yml").write_text(BASE["variables"])
        ssh = self.directory / "ssh"
        ssh.write_text(SSH.format(directory=self.directory))
        ssh.chmod(0o755)
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "playbooks/preflight.yml", "-i", str(inventory)],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_SSH_EXECUTABLE": str(ssh),
                "ANSIBLE_SSH_RETRIES": "0",
                "SLIPWAY_STATE": str(self.directory / "state"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert not (self.directory / "unexpected").exists(), (self.directory / "unexpected").read_text()
        lines = [line.replace(str(inventory), "INVENTORY") for line in MISTAKE.findall(done.stdout)]
        return done.returncode, lines, done.stdout


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_good_hosts_pass_and_the_secrets_are_made(lab: Lab) -> None:
    code, lines, output = lab.run()
    assert (code, lines) == (0, []), output
    assert (lab.directory / "state" / "trial" / "secrets.yml").exists()


def test_every_mistake_of_every_host_is_one_line(lab: Lab) -> None:
    lab.host("198.18.0.11", os="fedora 44", memory_kib="1048576", cgroup="tmpfs")
    lab.host("198.18.0.21", arch="riscv64", python="", mount_options="rw,noexec", sudo=False)
    lab.unreachable("198.18.0.22")
    code, lines, output = lab.run()
    assert code != 0
    assert lines == [
        "INVENTORY/hosts.yml:6: server-1 cgroups: found version 1, wanted version 2 (Kubernetes 1.35 and newer refuse "
        "version 1), for example systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
        "INVENTORY/hosts.yml:6: server-1 memory: found 1024 MiB, wanted at least 2048 MiB, for example 2048 MiB",
        "INVENTORY/hosts.yml:6: server-1 operating system: found fedora 44, wanted one of debian 12, debian 13, "
        "ubuntu 22.04, ubuntu 24.04, for example debian 12",
        "INVENTORY/hosts.yml:9: agent-1 /var/lib: found it mounted noexec, wanted a file system to write and to run "
        "programs, for example mount option rw,exec",
        "INVENTORY/hosts.yml:9: agent-1 architecture: found riscv64, wanted one of amd64, for example amd64",
        "INVENTORY/hosts.yml:9: agent-1 python: found none, wanted python3 3.8 or newer, "
        "for example apt-get install python3",
        'INVENTORY/hosts.yml:9: agent-1 sudo: found "sudo asks for a password", wanted sudo without a password for '
        "ops, for example /etc/sudoers.d/ops: ops ALL=(ALL) NOPASSWD: ALL",
        'INVENTORY/hosts.yml:10: agent-2 connection: found "Permission denied (publickey).", wanted an SSH login as '
        "ops, for example ssh ops@198.18.0.22 true",
    ], output
    assert not (lab.directory / "state").exists()
    assert "Traceback" not in output


def test_a_clock_that_differs_from_the_other_hosts_is_named(lab: Lab) -> None:
    lab.host("198.18.0.21", clock=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + 300)))
    code, lines, output = lab.run()
    assert code != 0
    assert len(lines) == 1, output
    start, _, rest = lines[0].partition("found ")
    assert start == "INVENTORY/hosts.yml:9: agent-1 clock: "
    assert 250 < int(rest.split()[0]) < 310
    assert rest.endswith(
        "s ahead of the other hosts, wanted at most 5 s between hosts, for example timedatectl set-ntp true"
    )
