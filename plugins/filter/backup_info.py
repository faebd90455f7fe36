"""Filter `backup_info`: what a repository of pgBackRest holds, from its encrypted file backup.info.

pgBackRest itself runs in the cluster, and this is asked before there is one.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

# How OpenSSL's `enc` writes, and with it pgBackRest: a mark, a salt, then the blocks.
MAGIC, SALT_BYTES, KEY_BYTES, BLOCK_BYTES = b"Salted__", 8, 32, 16
NOT_READ = "the repository cannot be decrypted: another cipher password than the one it was made with"
NO_BACKUP = "the repository has no backup, wanted one to rebuild from"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"backup_info": backup_info}


def backup_info(content: str, password: str) -> dict[str, Any]:
    """`content` is the file in base64. `problem` says in one line what is wrong with it, or nothing; `label` and
    `stopped` (UTC) are of the last backup, `backups` is how many there are."""
    try:
        parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(decrypt(base64.b64decode(content), password).decode())
        parser["backrest"]["backrest-format"]
    except (ValueError, KeyError, configparser.Error):
        return {"problem": NOT_READ}
    found = dict(parser["backup:current"]) if parser.has_section("backup:current") else {}
    if not found:
        return {"problem": NO_BACKUP}
    stops = {label: int(json.loads(text)["backup-timestamp-stop"]) for label, text in found.items()}
    last = max(stops, key=lambda label: stops[label])
    stopped = datetime.fromtimestamp(stops[last], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"problem": "", "label": last, "stopped": stopped, "backups": len(stops)}


def decrypt(content: bytes, password: str) -> bytes:
    """ValueError if it was not encrypted with this password."""
    if not content.startswith(MAGIC):
        raise ValueError("no salt")
    salt, blocks = content[len(MAGIC) :][:SALT_BYTES], content[len(MAGIC) + SALT_BYTES :]
    material, last = b"", b""
    while len(material) < KEY_BYTES + BLOCK_BYTES:
        last = hashlib.sha1(last + password.encode() + salt).digest()  # noqa: S324 - the format is pgBackRest's
        material += last
    key, vector = material[:KEY_BYTES], material[KEY_BYTES:][:BLOCK_BYTES]
    decryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
    padded = decryptor.update(blocks) + decryptor.finalize()
    unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
    return unpadder.update(padded) + unpadder.finalize()
