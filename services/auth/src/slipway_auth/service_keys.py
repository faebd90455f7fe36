"""The keys by which services identify themselves to auth, to get tokens by which others recognise them."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping

from slipway_auth.secret_files import ReloadMetrics, SecretFiles

SERVICE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
MIN_KEY_LENGTH = 16


def load_service_keys(text: str) -> dict[str, bytes]:
    """Name -> SHA-256 of its key. ValueError says what was wanted, and nothing of what was found."""
    wanted = f"a JSON object of service names and their keys of at least {MIN_KEY_LENGTH} characters"
    try:
        keys = json.loads(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not isinstance(keys, dict):
        raise ValueError(wanted)
    for name, key in keys.items():
        if not SERVICE_NAME.fullmatch(name) or not isinstance(key, str) or len(key) < MIN_KEY_LENGTH:
            raise ValueError(wanted)
    return {name: _digest(key) for name, key in keys.items()}


class ServiceKeys:
    def __init__(self, read: Callable[[str], str], metrics: ReloadMetrics) -> None:
        self._files: SecretFiles[Mapping[str, bytes]] = SecretFiles(("service_keys",), read, load_service_keys, metrics)

    def reload(self) -> bool:
        return self._files.reload()

    def match(self, name: str, key: str) -> bool:
        """Constant in time: digests have one length, and a name that nobody has is compared as well."""
        known = self._files.value.get(name)
        return hmac.compare_digest(_digest(key), known or bytes(32)) and known is not None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
