"""The secrets of an environment: made once, kept encrypted, opened by the key alone."""

from __future__ import annotations

import datetime
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from controller import ROOT, Run, ansible, apply_role
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from leaks import leaked, named


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Environment:
    """An environment of the test's own: a state directory that nobody else knows."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.state = base / "local"
        self.file, self.key, self.ca = (self.state / name for name in ("secrets.yml", "vault.key", "ca.crt"))

    def apply(self, *arguments: str, **variables: Any) -> Run:
        return apply_role("secrets", *arguments, variables=variables, SLIPWAY_STATE=str(self.base))

    def secrets(self) -> dict[str, Any]:
        shown = ansible("ansible-vault", "view", "--vault-password-file", str(self.key), str(self.file))
        assert shown.code == 0, shown.output
        found: dict[str, Any] = yaml.safe_load(shown.output)
        return found

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.base.rglob("*")) if path.is_file()}

    def refused(self, **variables: Any) -> str:
        """Apply, which must fail in one line and leave everything as it was; return the line."""
        before = self.content()
        run = self.apply(**variables)
        assert run.code != 0, run.output
        assert self.content() == before
        assert "Traceback" not in run.output
        return run.failure


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment whose secrets were made by one run, which must not have shown any."""
    environment = Environment(tmp_path_factory.mktemp("state"))
    run = environment.apply("-vvv", "--diff")
    assert run.code == 0, run.output
    assert leaked(environment.secrets(), run.output) == []
    return environment


@pytest.fixture
def environment(made: Environment, tmp_path: Path) -> Environment:
    """Return a copy of that environment, to be damaged."""
    shutil.copytree(made.base, tmp_path, dirs_exist_ok=True)
    return Environment(tmp_path)


# --- the lab's


def test_the_labs_secrets_are_encrypted_and_for_their_owner_alone(state: Path) -> None:
    assert (state / "secrets.yml").read_bytes().startswith(b"$ANSIBLE_VAULT;")
    assert mode(state / "secrets.yml") == mode(state / "vault.key") == 0o600
    assert mode(state) & 0o077 == 0


def test_the_labs_key_is_outside_of_the_checkout(state: Path) -> None:
    assert not (state / "vault.key").resolve().is_relative_to(ROOT)


def test_everything_that_the_platform_needs_is_there_and_differs(secrets: dict[str, Any]) -> None:
    assert set(secrets["postgres_databases"]) == {"auth", "api", "image"}
    assert set(secrets["minio_keys"]) == {"image"}
    passwords = [
        secrets["k3s_token"],
        secrets["postgres_superuser_password"],
        secrets["postgres_replication_password"],
        secrets["minio_root_password"],
        *secrets["postgres_databases"].values(),
        secrets["minio_keys"]["image"]["secret_key"],
    ]
    assert len(set(passwords)) == len(passwords)
    assert min(map(len, passwords)) >= 24
    key = serialization.load_pem_private_key(secrets["auth_signing_key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_the_ca_vouches_for_the_ingress_and_for_nothing_else(
    state: Path, inventory: Any, secrets: dict[str, Any]
) -> None:
    exported = (state / "ca.crt").read_text(encoding="utf-8")
    assert "PRIVATE KEY" not in exported
    authority = x509.load_pem_x509_certificate(exported.encode())
    leaf, *chain = x509.load_pem_x509_certificates(secrets["ingress_certificate"].encode())
    domain = inventory.variable("platform_domain")
    policy = x509.verification.PolicyBuilder().store(x509.verification.Store([authority]))
    for name in (domain, f"www.{domain}"):
        policy.build_server_verifier(x509.DNSName(name)).verify(leaf, chain)
    for name in ("example.com", f"a.b.{domain}"):
        with pytest.raises(x509.verification.VerificationError):
            policy.build_server_verifier(x509.DNSName(name)).verify(leaf, chain)
    key = serialization.load_pem_private_key(secrets["ingress_key"].encode(), None)
    assert key.public_key() == leaf.public_key()
    assert leaf.public_key() != authority.public_key()
    assert leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=30)


# --- one of the test's own


def test_a_new_environment_gets_files_for_their_owner_alone(made: Environment) -> None:
    assert {mode(made.file), mode(made.key)} == {0o600}
    assert mode(made.state) == 0o700
    assert made.file.read_bytes().startswith(b"$ANSIBLE_VAULT;")
    assert made.secrets()["ca_certificate"].strip() == made.ca.read_text(encoding="utf-8").strip()


def test_two_environments_share_no_secret(made: Environment, secrets: dict[str, Any]) -> None:
    mine, theirs = dict(named(made.secrets())), dict(named(secrets))
    # What is empty until somebody writes it holds no secret yet.
    assert [name for name in mine if mine[name] and mine[name] == theirs.get(name)] == []


def test_a_second_run_changes_nothing(environment: Environment) -> None:
    before = environment.content()
    run = environment.apply()
    assert run.code == 0, run.output
    assert run.changed == 0
    assert environment.content() == before


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    run = environment.apply("--check")
    assert run.code == 0, run.output
    assert environment.content() == {}


def test_a_new_service_gets_its_secrets_and_the_others_keep_theirs(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    assert environment.apply(services_enabled=["auth"]).code == 0
    before = environment.secrets()
    assert set(before["postgres_databases"]) == {"auth"}
    assert environment.apply(services_enabled=["auth", "image"]).code == 0
    after = environment.secrets()
    assert set(after["postgres_databases"]) == {"auth", "image"}
    assert dict(named(before)).items() <= dict(named(after)).items()


def test_a_new_domain_gets_a_new_certificate_of_the_same_ca(environment: Environment) -> None:
    before = environment.secrets()
    assert environment.apply(platform_domain="other.test").code == 0
    after = environment.secrets()
    assert after["ca_certificate"] == before["ca_certificate"]
    certificate = x509.load_pem_x509_certificate(after["ingress_certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"other.test", "*.other.test"}


def test_a_wrong_key_is_refused(environment: Environment) -> None:
    environment.key.write_text("not the key\n", encoding="utf-8")
    assert str(environment.key) in environment.refused()


def test_a_lost_key_is_refused_and_not_made_anew(environment: Environment) -> None:
    environment.key.unlink()
    assert str(environment.key) in environment.refused()


def test_a_key_that_others_may_read_is_refused(environment: Environment) -> None:
    environment.key.chmod(0o644)
    line = environment.refused()
    assert str(environment.key) in line
    assert "600" in line


def test_a_file_that_is_not_encrypted_is_refused(environment: Environment) -> None:
    environment.file.write_text("k3s_token: hello\n", encoding="utf-8")
    assert str(environment.file) in environment.refused()


def test_a_living_environment_never_gets_new_secrets(environment: Environment) -> None:
    for path in (environment.file, environment.key, environment.ca):
        path.unlink()
    (environment.state / "kubeconfig").write_text("{}\n", encoding="utf-8")
    assert str(environment.file) in environment.refused()


def test_a_key_inside_of_the_checkout_is_refused(tmp_path: Path) -> None:
    inside = ROOT / ".cache" / "molecule-secrets"
    assert str(inside) in Environment(tmp_path).refused(secrets_dir=str(inside))
    assert not inside.exists()
