"""The signing key, its public half as a JWK, and the id that ties tokens to it."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from slipway_kit.tokens import ALGORITHM


@dataclass(frozen=True)
class SigningKey:
    private: EllipticCurvePrivateKey
    public_jwk: dict[str, Any]

    @property
    def key_id(self) -> str:
        return str(self.public_jwk["kid"])


def load_signing_key(pem: str) -> SigningKey:
    wanted = "a private key in PEM form on the curve P-256"
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not the parser's words: they may quote what was in the file.
        raise ValueError(wanted) from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(wanted)
    numbers = key.public_key().public_numbers()
    jwk = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
    return SigningKey(key, {**jwk, "alg": ALGORITHM, "use": "sig", "kid": _thumbprint(jwk)})


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(32, "big"))


def _thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638: all replicas give the same key the same id without having to agree on one."""
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
