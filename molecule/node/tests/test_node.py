"""A host after the baseline: what Kubernetes needs of its system, and what an administrator finds there."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("key", "value"),
    [("net.ipv4.ip_forward", "1"), ("net.bridge.bridge-nf-call-iptables", "1"), ("net.ipv4.conf.all.rp_filter", "2")],
)
def test_the_kernel_is_set_up_now_and_after_a_boot(server: Any, key: str, value: str) -> None:
    assert server.check_output("sysctl -n %s", key) == value
    kept = server.check_output("cat /etc/sysctl.d/*.conf").splitlines()
    assert f"{key}={value}" in [line.replace(" ", "") for line in kept]


def test_modules_are_loaded_at_boot(server: Any) -> None:
    assert {"br_netfilter", "overlay"} <= set(server.check_output("cat /etc/modules-load.d/*.conf").split())


@pytest.mark.parametrize("program", ["conntrack", "curl", "ethtool", "ip", "iptables", "nft", "socat"])
def test_what_kubernetes_calls_is_there(server: Any, program: str) -> None:
    assert server.exists(program)


def test_its_programs_trust_the_platforms_ca(server: Any, secrets: dict[str, Any], state: Path, inventory: Any) -> None:
    """curl on the host believes a server whose certificate the CA signed, with no option that tells it to."""
    name = f"www.{inventory.variable('platform_domain')}"
    server.check_output("install -d -m 0700 /tmp/tls")
    for file in ("ingress_certificate", "ingress_key"):
        write = [*ssh_to(server, state), f"sudo tee /tmp/tls/{file}.pem >/dev/null"]
        subprocess.run(write, input=secrets[file].encode(), check=True)
    serve = (
        "openssl s_server -accept 4433 -cert /tmp/tls/ingress_certificate.pem -key /tmp/tls/ingress_key.pem -www -quiet"
    )
    server.check_output(f"systemd-run --unit=molecule-tls --collect {serve}")
    try:
        ask = (
            f"curl --silent --show-error --retry 20 --retry-delay 1 --retry-connrefused --resolve {name}:4433:127.0.0.1"
        )
        answer = server.run(f"{ask} --output /dev/null --write-out '%{{http_code}}' https://{name}:4433/")
        assert (answer.rc, answer.stdout) == (0, "200"), answer.stderr
        wrong = server.run("curl --silent --show-error --resolve example.com:4433:127.0.0.1 https://example.com:4433/")
        assert wrong.rc == 60, "a certificate for another name was believed"
    finally:
        server.run("systemctl stop molecule-tls")
        server.check_output("rm -r /tmp/tls")


def ssh_to(server: Any, state: Path) -> list[str]:
    """Return the start of a command line that reaches the host."""
    options = ["-i", str(state / "ssh" / "id_ed25519"), "-o", f"UserKnownHostsFile={state / 'ssh' / 'known_hosts'}"]
    return ["ssh", *options, "-o", "BatchMode=yes", f"{server.backend.host.user}@{server.backend.host.name}"]


def test_no_secret_of_the_platform_reached_it(server: Any, secrets: dict[str, Any]) -> None:
    trusted = server.check_output("cat /usr/local/share/ca-certificates/*.crt")
    assert trusted.count("BEGIN CERTIFICATE") == 1
    assert secrets["ca_certificate"].strip() in trusted
    assert server.run("grep -rl 'PRIVATE KEY' /usr/local /etc/slipway").stdout == ""


def test_its_clock_agrees_with_the_controllers(server: Any) -> None:
    before = time.time()
    there = float(server.check_output("date +%s.%N"))
    assert before - 2 <= there <= time.time() + 2


def test_the_journal_is_kept_within_bounds(server: Any) -> None:
    shown = server.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert [line for line in shown.splitlines() if line.startswith("SystemMaxUse=")][-1] != "SystemMaxUse="


def test_its_shutdown_waits_for_pods(server: Any) -> None:
    shown = server.check_output("systemd-analyze cat-config systemd/logind.conf").splitlines()
    delays = [line for line in shown if line.startswith("InhibitDelayMaxSec=")]
    assert delays and int(delays[-1].partition("=")[2]) >= 60


def test_nothing_has_failed(server: Any) -> None:
    """The units that the role started or changed are well; what a container host cannot do is not the role's."""
    failed = server.check_output("systemctl list-units --failed --plain --no-legend")
    assert "journal" not in failed and "logind" not in failed, failed


def test_what_the_role_writes_nobody_else_may_change(server: Any) -> None:
    places = "/etc/sysctl.d /etc/modules-load.d /etc/systemd /usr/local/share/ca-certificates"
    written = server.check_output(f"find {places} -name '*slipway*'").split()
    assert len(written) >= 5
    assert server.check_output(f"find {places} -name '*slipway*' -perm /022") == ""
