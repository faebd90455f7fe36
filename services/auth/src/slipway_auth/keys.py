"""The key that signs, the keys whose signatures count, and the ids that tie tokens to them.

The procedure for a new key, without a restart and without a refused token (docs: services/README.md): publish the next
public key, then sign with it while the previous one stays published, then drop the previous one.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from slipway_kit.tokens import ALGORITHM, InvalidTokenError

from slipway_auth.secret_files import ReloadMetrics, SecretFiles

_PEM_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)


@dataclass(frozen=True)
class SigningKey:
    private: EllipticCurvePrivateKey
    public_jwk: dict[str, Any]

    @property
    def key_id(self) -> str:
        return str(self.public_jwk["kid"])


def load_signing_key(pem: str) -> SigningKey:
    """ValueError says what was wanted, and nothing of what was found."""
    wanted = "a private key in PEM form on the curve P-256"
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not the parser's words: they may quote what was in the file.
        raise ValueError(wanted) from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(wanted)
    return SigningKey(key, public_jwk(key.public_key()))


def load_verification_keys(bundle: str) -> list[dict[str, Any]]:
    """The public keys of a PEM bundle as JWKs; none for an empty one."""
    wanted = "public keys in PEM form on the curve P-256, one after the other, or nothing"
    if _PEM_BLOCK.sub("", bundle).strip():
        raise ValueError(wanted)
    found = []
    for pem in _PEM_BLOCK.findall(bundle):
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError(wanted) from None
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError(wanted)
        found.append(public_jwk(key))
    return found


def public_jwk(key: EllipticCurvePublicKey) -> dict[str, Any]:
    numbers = key.public_numbers()
    jwk = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
    return {**jwk, "alg": ALGORITHM, "use": "sig", "kid": _thumbprint(jwk)}


@dataclass(frozen=True)
class Keys:
    signing: SigningKey
    published: dict[str, dict[str, Any]]
    usable: dict[str, jwt.PyJWK]

    @classmethod
    def parse(cls, signing_pem: str, verification_pem: str) -> "Keys":
        signing = load_signing_key(signing_pem)
        jwks = [signing.public_jwk, *load_verification_keys(verification_pem)]
        published = {str(jwk["kid"]): jwk for jwk in jwks}
        return cls(signing, published, {kid: jwt.PyJWK(jwk, algorithm=ALGORITHM) for kid, jwk in published.items()})


class KeyRing:
    """The keys in force now. Also a `KeySource`: auth checks tokens with what it publishes, without asking itself."""

    def __init__(self, read: Callable[[str], str], metrics: ReloadMetrics) -> None:
        self._files = SecretFiles(("auth_signing_key", "auth_verification_keys"), read, Keys.parse, metrics)

    def reload(self) -> bool:
        return self._files.reload()

    @property
    def signing(self) -> SigningKey:
        return self._files.value.signing

    @property
    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        return {"keys": list(self._files.value.published.values())}

    async def get(self, kid: str) -> jwt.PyJWK:
        try:
            return self._files.value.usable[kid]
        except KeyError:
            raise InvalidTokenError("kid is not known") from None


def _coordinate(number: int) -> str:
    return _base64url(number.to_bytes(32, "big"))


def _thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638: all replicas give the same key the same id without having to agree on one."""
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
