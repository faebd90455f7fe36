"""The secrets of an environment are made once, never again, and refused when they are not safely kept."""

from __future__ import annotations

import datetime
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from secret_store import RefusedError, Store, ensure, for_services  # noqa: E402

NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
WANTED: list[dict[str, Any]] = [
    {"name": "ca", "kind": "authority", "common_name": "test root CA"},
    {"name": "k3s_token", "kind": "token"},
    {"name": "postgres_databases.auth", "kind": "password"},
    {"name": "minio_keys.image.access_key", "kind": "access_key"},
    {"name": "auth_signing_key", "kind": "ec_key"},
    {"name": "ingress", "kind": "certificate", "authority": "ca", "domains": ["slipway.test", "*.slipway.test"]},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    state = tmp_path / "state"
    return Store(state / "secrets.yml", state / "vault.key", living=[state / "kubeconfig"])


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def content_of(store: Store) -> dict[str, bytes]:
    files = (store.path, store.key_file)
    return {path.name: path.read_bytes() for path in files if path.exists()}


def refusal(store: Store) -> str:
    before = content_of(store)
    with pytest.raises(RefusedError) as caught:
        ensure(store, WANTED)
    assert content_of(store) == before, "a refusal changes nothing"
    message = str(caught.value)
    assert "\n" not in message
    assert ": found " in message
    assert ", wanted " in message
    assert ", for example " in message
    return message


def test_everything_is_generated_once(store: Store) -> None:
    content, created = ensure(store, WANTED, now=NOW)
    assert created == [entry["name"] for entry in WANTED]
    again, nothing = ensure(store, WANTED, now=NOW)
    assert nothing == []
    assert again == content


def test_files_belong_to_their_owner_alone_and_are_encrypted(store: Store) -> None:
    content, _ = ensure(store, WANTED)
    assert mode(store.path) == mode(store.key_file) == 0o600
    assert mode(store.path.parent) == 0o700
    data = store.path.read_bytes()
    assert data.startswith(b"$ANSIBLE_VAULT;")
    assert content["k3s_token"].encode() not in data
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["secrets.lock", "secrets.yml", "vault.key"]


def test_ansible_vault_itself_can_read_the_file(store: Store) -> None:
    content, _ = ensure(store, WANTED)
    program = str(Path(sys.executable).parent / "ansible-vault")
    command = [program, "view", "--vault-password-file", str(store.key_file), str(store.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert content["k3s_token"] in done.stdout


def test_two_runs_at_once_agree(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: ensure(store, WANTED, now=NOW)[0], range(4)))
    assert all(result == results[0] for result in results)


def test_a_new_service_adds_its_secrets_alone(store: Store) -> None:
    before, _ = ensure(store, WANTED, now=NOW)
    after, created = ensure(store, [*WANTED, {"name": "postgres_databases.api", "kind": "password"}], now=NOW)
    assert created == ["postgres_databases.api"]
    assert after["postgres_databases"]["auth"] == before["postgres_databases"]["auth"]
    del after["postgres_databases"]["api"]
    assert after == before


def test_check_mode_writes_nothing(store: Store) -> None:
    content, created = ensure(store, WANTED, dry_run=True)
    assert len(created) == len(WANTED)
    assert content["ca_certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert not store.path.parent.exists()


def test_the_ca_signs_the_ingress_certificate(store: Store) -> None:
    content, _ = ensure(store, WANTED, now=NOW)
    authority = x509.load_pem_x509_certificate(content["ca_certificate"].encode())
    ingress = x509.load_pem_x509_certificate(content["ingress_certificate"].encode())
    ingress.verify_directly_issued_by(authority)
    names = ingress.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["slipway.test", "*.slipway.test"]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (authority.not_valid_after_utc - NOW).days == 3652
    key = serialization.load_pem_private_key(content["ingress_key"].encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == ingress.public_key()
    assert isinstance(key.curve, ec.SECP256R1)


def test_a_ca_below_the_root_signs_servers_and_no_further_ca(store: Store) -> None:
    below = {"name": "cluster_ca", "kind": "authority", "authority": "ca", "common_name": "test cluster CA"}
    server = {"name": "server", "kind": "certificate", "authority": "cluster_ca", "domains": ["server.test"]}
    ensure(store, WANTED, now=NOW)
    later = NOW + datetime.timedelta(days=100)
    content, created = ensure(store, [*WANTED, below, server], now=later)
    assert created == ["cluster_ca", "server"]
    root, authority, leaf = (
        x509.load_pem_x509_certificate(content[f"{name}_certificate"].encode())
        for name in ("ca", "cluster_ca", "server")
    )
    authority.verify_directly_issued_by(root)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert authority.not_valid_after_utc <= root.not_valid_after_utc
    policy = x509.verification.PolicyBuilder().store(x509.verification.Store([root])).time(later)
    chain = policy.build_server_verifier(x509.DNSName("server.test")).verify(leaf, [authority])
    assert chain == [leaf, authority, root]


@pytest.mark.parametrize(("days", "renewed"), [(366, []), (367, []), (368, ["ingress"]), (500, ["ingress"])])
def test_a_certificate_is_renewed_thirty_days_before_its_end(store: Store, days: int, renewed: list[str]) -> None:
    before, _ = ensure(store, WANTED, now=NOW)
    after, created = ensure(store, WANTED, now=NOW + datetime.timedelta(days=days))
    assert created == renewed
    assert after["ca_certificate"] == before["ca_certificate"]
    assert (after["ingress_certificate"] == before["ingress_certificate"]) == (not renewed)


def test_a_certificate_is_renewed_when_the_domain_changes(store: Store) -> None:
    ensure(store, WANTED, now=NOW)
    moved = [*WANTED[:-1], {**WANTED[-1], "domains": ["slipway.test", "*.other.test"]}]
    assert ensure(store, moved, now=NOW)[1] == ["ingress"]


def test_a_key_that_others_may_read_is_refused(store: Store) -> None:
    ensure(store, WANTED)
    store.key_file.chmod(0o640)
    assert refusal(store) == (
        f"{store.key_file}: found mode 0640, wanted 0600 (readable by its owner alone), "
        f"for example chmod 600 {store.key_file}"
    )


def test_a_file_that_others_may_read_is_refused(store: Store) -> None:
    ensure(store, WANTED)
    store.path.chmod(0o644)
    assert "found mode 0644" in refusal(store)


def test_a_file_that_is_not_encrypted_is_refused(store: Store) -> None:
    ensure(store, WANTED)
    store.path.write_text("k3s_token: plain\n")
    message = refusal(store)
    assert "found a file that is not encrypted" in message
    assert "ansible-vault encrypt" in message


def test_a_wrong_key_is_refused(store: Store) -> None:
    ensure(store, WANTED)
    store.key_file.write_text("another key\n")
    message = refusal(store)
    assert f"found a key that does not open {store.path}" in message
    assert "another key" not in message


def test_a_lost_key_is_refused(store: Store) -> None:
    ensure(store, WANTED)
    store.key_file.unlink()
    assert "found no such file" in refusal(store)


def test_lost_secrets_of_a_living_environment_are_refused(store: Store) -> None:
    store.path.parent.mkdir()
    (store.path.parent / "kubeconfig").touch()
    assert "of a living environment" in refusal(store)


def test_files_that_git_tracks_are_refused(store: Store) -> None:
    ensure(store, WANTED)
    for path in (store.path, store.key_file):
        repository = ["git", "-C", str(store.path.parent)]
        subprocess.run([*repository, "init", "-q"], check=True)
        subprocess.run([*repository, "add", "-f", path.name], check=True)
        assert f"{path}: found a file that git tracks" in refusal(store)
        subprocess.run([*repository, "rm", "-q", "--cached", path.name], check=True)


def test_a_key_inside_of_the_checkout_is_refused(store: Store, tmp_path: Path) -> None:
    inside = Store(store.path, store.key_file, checkout=tmp_path)
    assert "the vault key inside of the checkout" in refusal(inside)


def test_half_of_a_pair_is_refused(store: Store) -> None:
    content, _ = ensure(store, WANTED)
    del content["ca_key"]
    secret = VaultSecret(store.key_file.read_bytes().strip())
    text = VaultLib([("default", secret)]).encrypt("ca_certificate: x\n")
    store.path.write_bytes(text)
    assert "half of the pair ca" in refusal(store)


def test_a_text_is_empty_until_somebody_writes_it(store: Store) -> None:
    wanted = [{"name": "auth_verification_keys", "kind": "text"}]
    content, created = ensure(store, wanted)
    assert (content, created) == ({"auth_verification_keys": ""}, ["auth_verification_keys"])
    assert ensure(store, wanted)[1] == []
    store.write({"auth_verification_keys": "a public key"})
    assert ensure(store, wanted) == ({"auth_verification_keys": "a public key"}, [])


def test_services_get_what_their_definition_asks_for(tmp_path: Path) -> None:
    both = "database: {name: image_db}\nbucket: images\n"
    definitions = {"auth": "database: {name: auth_db}\n", "image": both, "web": "port: 1\n"}
    definitions["auth"] += "redis: {}\nservice_tokens: false\n"
    definitions["image"] += "service_tokens: true\n"
    for name, text in definitions.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "service.yml").write_text(text)
    wanted = [
        {"name": "k3s_token", "kind": "token"},
        {"name": "postgres_databases.SERVICE", "kind": "password", "each": "database"},
        {"name": "minio_keys.SERVICE.access_key", "kind": "access_key", "each": "bucket"},
        {"name": "redis_passwords.SERVICE", "kind": "password", "each": "redis"},
        {"name": "service_keys.SERVICE", "kind": "password", "each": "service_tokens"},
    ]
    assert [entry["name"] for entry in for_services(wanted, list(definitions), tmp_path)] == [
        "k3s_token",
        "postgres_databases.auth",
        "postgres_databases.image",
        "minio_keys.image.access_key",
        "redis_passwords.auth",
        "service_keys.image",
    ]
