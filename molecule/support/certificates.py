"""Certificates of a test's own CA, made as the role secrets makes them."""

from __future__ import annotations

from datetime import UTC, datetime

from secret_store import Secrets, authority, certificate


def server_certificate(name: str, *domains: str, signer: Secrets | None = None) -> Secrets:
    """Return a CA (`ca_certificate`, `ca_key`), a new one unless a signer is given, and a certificate of it for the
    domains (`<name>_certificate`, `<name>_key`)."""
    now = datetime.now(UTC)
    ca = signer or authority("ca", "a CA of the tests", now)
    return {**ca, **certificate(ca, {"name": name, "authority": "ca", "domains": list(domains)}, now)}
