"""Secrets of one environment: generated once, kept in one file that ansible-vault can read.

Existing values are never replaced; only a certificate is, when it is about to end or its domain has changed.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import ipaddress
import os
import secrets
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3652
# Browsers refuse server certificates that live longer than 398 days.
CERTIFICATE_DAYS = 397
RENEW_DAYS = 30
ALPHANUMERIC = string.ascii_letters + string.digits

Secrets = dict[str, Any]
Wanted = Mapping[str, Any]


class RefusedError(Exception):
    """Nothing was written. The message is one line: where, found, wanted, the next step."""

    def __init__(self, where: Path, found: str, wanted: str, example: str) -> None:
        super().__init__(f"{where}: found {found}, wanted {wanted}, for example {example}")


class Store:
    def __init__(self, path: Path, key_file: Path, checkout: Path | None = None, living: Sequence[Path] = ()) -> None:
        self.path, self.key_file, self.checkout, self.living = path, key_file, checkout, living

    def read(self) -> Secrets | None:
        """The secrets, or None when the environment has none yet. Refuses what is not safely kept."""
        self._refuse_unsafe_key()
        if not self.path.exists():
            self._refuse_living_environment()
            return None
        self._refuse_shared(self.path)
        self._refuse_tracked(self.path)
        data = self.path.read_bytes()
        if not data.startswith(b"$ANSIBLE_VAULT;"):
            raise RefusedError(
                self.path,
                "a file that is not encrypted",
                "one encrypted with ansible-vault",
                f"ansible-vault encrypt --vault-password-file {self.key_file} {self.path}",
            )
        if not self.key_file.exists():
            raise RefusedError(
                self.key_file,
                "no such file",
                f"the key of {self.path}",
                "the copy of it that you keep in your password manager",
            )
        try:
            content = yaml.safe_load(self._vault().decrypt(data))
        except AnsibleError as error:
            raise RefusedError(
                self.key_file,
                f"a key that does not open {self.path}",
                "the key that it was written with",
                "the copy of it that you keep in your password manager",
            ) from error
        except yaml.YAMLError:
            content = None
        if not isinstance(content, dict):
            raise RefusedError(self.path, "content that is no YAML map", "what this role wrote", "a backup of the file")
        return content

    def write(self, content: Secrets) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.key_file.exists():
            self.key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self.key_file, secrets.token_urlsafe(48).encode() + b"\n")
        text = yaml.dump(content, Dumper=Dumper, default_flow_style=False, sort_keys=True)
        write_private(self.path, self._vault().encrypt(text))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Two runs at once must not both generate: the second waits, then finds what the first has written."""
        self._refuse_unsafe_key()  # before a directory is made where none may be
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _vault(self) -> VaultLib:
        return VaultLib([("default", VaultSecret(self.key_file.read_bytes().strip()))])

    def _refuse_unsafe_key(self) -> None:
        if self.checkout is not None and self.key_file.resolve().is_relative_to(self.checkout.resolve()):
            raise RefusedError(
                self.key_file,
                "the vault key inside of the checkout",
                "it outside",
                "slipway_state_dir: /var/lib/slipway/production",
            )
        if self.key_file.exists():
            self._refuse_shared(self.key_file)
            self._refuse_tracked(self.key_file)

    def _refuse_living_environment(self) -> None:
        for proof in self.living:
            if proof.exists():
                raise RefusedError(
                    self.path,
                    f"no secrets, but {proof} of a living environment",
                    "the secrets it runs with",
                    f"a backup of {self.path.name}, or the environment removed first (make down)",
                )

    @staticmethod
    def _refuse_shared(path: Path) -> None:
        status = path.stat()
        if status.st_mode & 0o077:
            raise RefusedError(
                path, f"mode {status.st_mode & 0o777:04o}", "0600 (readable by its owner alone)", f"chmod 600 {path}"
            )
        if status.st_uid != os.geteuid():
            raise RefusedError(
                path,
                f"a file of user {status.st_uid}",
                f"one of user {os.geteuid()}, who runs this",
                f"chown {os.geteuid()} {path}",
            )

    @staticmethod
    def _refuse_tracked(path: Path) -> None:
        command = ["git", "-C", str(path.parent), "ls-files", "--error-unmatch", path.name]
        try:
            tracked = subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return
        if tracked:
            raise RefusedError(
                path,
                "a file that git tracks",
                "one outside of every repository",
                f"git rm --cached {path.name}, then change what is in it: history keeps it",
            )


def ensure(
    store: Store, wanted: Sequence[Wanted], *, dry_run: bool = False, now: datetime.datetime | None = None
) -> tuple[Secrets, list[str]]:
    """Generate what is missing; return all secrets and the names of the new ones."""
    if dry_run:
        content = store.read() or {}
        return content, fill(content, wanted, now)
    with store.lock():
        content = store.read() or {}
        created = fill(content, wanted, now)
        if created:
            store.write(content)
    return content, created


def fill(content: Secrets, wanted: Sequence[Wanted], now: datetime.datetime | None = None) -> list[str]:
    """Add to `content` what is missing, in the order of `wanted`: an authority stands before its certificates."""
    moment = now or datetime.datetime.now(datetime.UTC)
    created = []
    for entry in wanted:
        name, kind = entry["name"], entry["kind"]
        if kind == "authority":
            pair = {f"{name}_certificate", f"{name}_key"}
            if not pair & content.keys():
                signer = loaded_authority(content, entry["authority"]) if entry.get("authority") else None
                content.update(authority(name, entry["common_name"], moment, signer))
                created.append(name)
            elif not pair <= content.keys():
                raise RefusedError(
                    Path("secrets.yml"), f"half of the pair {name}", " and ".join(sorted(pair)), "a backup"
                )
        elif kind == "certificate":
            if not is_current(content, entry, moment):
                content.update(certificate(content, entry, moment))
                created.append(name)
        elif place(content, name) is None:
            parent, key = container(content, name)
            parent[key] = GENERATORS[kind]()
            created.append(name)
    return created


def container(content: Secrets, name: str) -> tuple[Secrets, str]:
    *parents, key = name.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    return content, key


def place(content: Secrets, name: str) -> Any:
    """The value of a dotted name."""
    value: Any = content
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def random_text(length: int, alphabet: str = ALPHANUMERIC) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def signing_key() -> str:
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


# Letters and digits alone: no value ever needs quoting in a URL, a shell or a configuration file.
GENERATORS: dict[str, Callable[[], str | Secrets]] = {
    "password": lambda: random_text(32),
    "token": lambda: secrets.token_hex(32),
    "user": lambda: "admin-" + random_text(8, string.ascii_lowercase + string.digits),
    "access_key": lambda: random_text(20, string.ascii_uppercase + string.digits),
    "ec_key": signing_key,
    # Nothing, until somebody writes something there.
    "text": lambda: "",
    "map": dict,
}


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


Authority = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def authority(name: str, common_name: str, now: datetime.datetime, signer: Authority | None = None) -> Secrets:
    """A root CA, or one below it, which signs no further CAs and ends no later. Without name constraints: it also signs
    what has no public name, inside of the cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = key_usage(digital_signature=False, sign=True)
    above, signer_key = signer or (None, key)
    days = min(AUTHORITY_DAYS, (above.not_valid_after_utc - now).days) if above else AUTHORITY_DAYS
    built = (
        builder(subject, above.subject if above else subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if above else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False)
        .sign(signer_key, hashes.SHA256())
    )
    return {f"{name}_certificate": pem(built), f"{name}_key": private_pem(key)}


def loaded_authority(content: Secrets, name: str) -> Authority:
    found = x509.load_pem_x509_certificate(content[f"{name}_certificate"].encode())
    key = serialization.load_pem_private_key(content[f"{name}_key"].encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RefusedError(Path("secrets.yml"), f"a key of another kind as {name}_key", "an EC key", "a backup")
    return found, key


def certificate(content: Secrets, entry: Wanted, now: datetime.datetime) -> Secrets:
    """A server certificate signed by the authority that the entry names."""
    signer, signer_key = loaded_authority(content, entry["authority"])
    key = ec.generate_private_key(ec.SECP256R1())
    domains = list(entry["domains"])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domains[0][:64])])
    built = (
        builder(subject, signer.subject, key.public_key(), now, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True, sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(domain) for domain in domains]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False)
        .sign(signer_key, hashes.SHA256())
    )
    return {f"{entry['name']}_certificate": pem(built), f"{entry['name']}_key": private_pem(key)}


def is_current(content: Secrets, entry: Wanted, now: datetime.datetime) -> bool:
    """Is there a certificate for these domains, signed by today's authority, with more than 30 days left?"""
    text, key = content.get(f"{entry['name']}_certificate"), content.get(f"{entry['name']}_key")
    if not text or not key:
        return False
    found = x509.load_pem_x509_certificate(text.encode())
    signer = x509.load_pem_x509_certificate(content[f"{entry['authority']}_certificate"].encode())
    try:
        found.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    same_names = set(names) == {general_name(domain) for domain in entry["domains"]}
    return same_names and found.not_valid_after_utc - now >= datetime.timedelta(days=RENEW_DAYS)


def general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A host whose clock is a little behind must not meet a certificate from the future.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def key_usage(*, digital_signature: bool, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(built: x509.Certificate) -> str:
    return built.public_bytes(serialization.Encoding.PEM).decode()


def write_private(path: Path, data: bytes) -> None:
    """Mode 0600 from the first byte on, and never half a file."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class Dumper(yaml.SafeDumper):
    """PEM blocks stay readable in `ansible-vault view`."""


def represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, represent_text)


def for_services(wanted: Sequence[Wanted], services: Sequence[str], directory: Path) -> list[Wanted]:
    """Entries with `each: <key>` stand for one secret of every service whose service.yml has that key, be it empty."""
    documents = {}
    for name in services:
        path = directory / name / "service.yml"
        documents[name] = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    found: list[Wanted] = []
    for entry in wanted:
        if "each" not in entry:
            found.append(entry)
            continue
        for name, document in documents.items():
            if document.get(entry["each"], False) not in (False, None):
                found.append({**entry, "name": entry["name"].replace("SERVICE", name)})
    return found
