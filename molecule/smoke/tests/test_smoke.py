"""The check that users' requests work: green on the lab, and of use when something is broken."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from controller import Run, apply_role
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from https_client import ask
from leaks import leaked

NOBODY = "10.66.0.250"
HINT = "where to look: "


@pytest.fixture(scope="session")
def addresses(inventory: Any) -> list[str]:
    """Return the addresses of all nodes."""
    return [inventory.address(host) for host in inventory.hosts()]


@pytest.fixture(scope="session")
def smoke(state: Path, domain: str, secrets: dict[str, Any], addresses: list[str]) -> Any:
    """Return a function that runs the check once, as the platform's playbook does but for what is given."""

    def run(**changes: Any) -> Run:
        variables = {
            "smoke_url": f"https://{domain}",
            "smoke_ca": str(state / "ca.crt"),
            "smoke_password": secrets["smoke_password"],
            "smoke_addresses": addresses,
            "smoke_deadline": 0,
        }
        done = apply_role("smoke", variables=variables | changes)
        assert leaked(secrets, done.output) == []
        assert "Traceback" not in done.output
        return done

    return run


def what_is_wrong(run: Run) -> tuple[str, str]:
    """Return the one line that says what is wrong, and the one that says where to look."""
    assert run.code != 0, run.output
    lines = run.output.splitlines()
    found = [line for line in lines if " FAILED " in line]
    hints = [line.strip().removeprefix(HINT) for line in lines if line.strip().startswith(HINT)]
    assert len(found) == 1 and hints, run.output
    return found[0], hints[0]


@pytest.fixture
def foreign_ca(tmp_path: Path) -> Path:
    """Return the certificate of a CA that has nothing to do with the platform."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody else")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "foreign.crt"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return file


def left_behind(address: str, domain: str, trust: ssl.SSLContext, secrets: dict[str, Any]) -> dict[str, Any]:
    """Return the posts and images of the check's own account."""
    account = {"username": "smoke", "password": secrets["smoke_password"]}
    token = ask(address, domain, "/api/v1/auth/login", trust, content=account).json()["access_token"]
    paths = ("/api/v1/posts/my", "/api/v1/images")
    return {path: ask(address, domain, path, trust, token=token).json() for path in paths}


def test_it_is_green_and_leaves_nothing_behind(
    smoke: Any, addresses: list[str], domain: str, trust: ssl.SSLContext, secrets: dict[str, Any]
) -> None:
    before = left_behind(addresses[0], domain, trust, secrets)
    run = smoke()
    assert run.code == 0, run.output
    assert run.changed == 0
    assert "Upload a JPEG of 10 MB" in run.output and "SHA-256" in run.output
    assert left_behind(addresses[0], domain, trust, secrets) == before


def test_every_node_is_a_way_in(smoke: Any, addresses: list[str]) -> None:
    for address in addresses:
        run = smoke(smoke_addresses=[address])
        assert run.code == 0, f"{address}: {run.output}"


def test_a_node_that_is_down_is_passed_over(smoke: Any, addresses: list[str]) -> None:
    run = smoke(smoke_addresses=[NOBODY, addresses[0]])
    assert run.code == 0, run.output


def test_a_foreign_ca_is_named(smoke: Any, foreign_ca: Path) -> None:
    wrong, hint = what_is_wrong(smoke(smoke_ca=str(foreign_ca)))
    assert "certificate" in wrong
    assert str(foreign_ca) in hint


def test_a_wrong_address_is_named(smoke: Any) -> None:
    wrong, hint = what_is_wrong(smoke(smoke_addresses=[NOBODY]))
    assert NOBODY in wrong
    assert "kubectl" in hint


def test_a_wrong_password_is_named_and_not_shown(smoke: Any) -> None:
    password = "not-the-password-of-this-account"
    run = smoke(smoke_password=password)
    wrong, hint = what_is_wrong(run)
    assert "/auth/" in wrong
    assert "smoke" in hint and "password" in hint
    assert leaked({"password": password}, run.output) == []


def test_a_site_that_is_not_served_is_named(smoke: Any, domain: str) -> None:
    wrong, hint = what_is_wrong(smoke(smoke_url=f"https://nobody.{domain}"))
    assert f"nobody.{domain}" in wrong
    assert "kubectl" in hint


def test_it_goes_on_trying_for_as_long_as_it_is_told(smoke: Any) -> None:
    run = smoke(smoke_addresses=[NOBODY], smoke_deadline=8)
    what_is_wrong(run)
    seconds = int(run.output.partition("not green after ")[2].split()[0])
    assert seconds > 4, "one attempt takes no longer than that"
