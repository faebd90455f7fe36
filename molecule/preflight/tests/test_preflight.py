"""Preflight accepts the lab, touches nothing, and says in one line what is wrong. More wrong inventories stand in
tests/preflight."""

from __future__ import annotations

import re
from typing import Any

import pytest
from controller import Run, playbook

# What a role could have touched. What a running cluster writes by itself is left out.
TREES = "/etc /usr/local /opt /root /home /var/lib/dpkg"
FINGERPRINT = f"find {TREES} -xdev -printf '%p %y %m %u %g %s %T@ %l\\n' | sort | sha256sum"


def preflight(**variables: Any) -> Run:
    """Run preflight on the lab as site.yml does."""
    return playbook("playbooks/preflight.yml", variables=variables)


@pytest.fixture
def fingerprints(hosts: dict[str, Any]) -> Any:
    """Return a function that says what the files of every host are."""
    return lambda: {name: host.check_output(FINGERPRINT) for name, host in hosts.items()}


def test_the_lab_is_accepted_and_no_file_of_a_host_changes(fingerprints: Any) -> None:
    before = fingerprints()
    run = preflight()
    assert run.code == 0, run.output
    assert run.changed == 0
    assert fingerprints() == before


def test_check_mode_says_the_same() -> None:
    run = playbook("playbooks/preflight.yml", "--check")
    assert run.code == 0, run.output
    assert run.changed == 0


def test_all_mistakes_come_at_once_one_line_each(fingerprints: Any) -> None:
    before = fingerprints()
    run = preflight(platform_domian="example.test", platform_profile="tiny")
    assert run.code != 0
    typo = [line for line in run.output.splitlines() if "platform_domian" in line]
    value = [line for line in run.output.splitlines() if "tiny" in line]
    assert typo and value, run.output
    assert re.search(r"platform_domain\b", typo[0]), f"no did-you-mean: {typo[0]}"
    assert re.search(r"\blab\b", value[0]) and re.search(r"\bsmall\b", value[0]), (
        f"does not say what is wanted: {value[0]}"
    )
    assert fingerprints() == before


def test_a_mistake_in_the_variables_is_found_without_any_host() -> None:
    run = preflight(platform_profile="tiny", ansible_port=9)
    assert run.code != 0
    assert "tiny" in run.output
    assert "UNREACHABLE!" not in run.output
