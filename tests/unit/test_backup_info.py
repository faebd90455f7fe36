"""What a rebuild reads of a repository before there is a cluster: its encrypted backup.info, from an S3."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse"
# As pgBackRest 2.55 writes it, shortened.
TEXT = """[backrest]
backrest-checksum="0123456789abcdef0123456789abcdef01234567"
backrest-format=5
backrest-version="2.55.1"

[backup:current]
20261127-020000F={"backrest-format":5,"backup-timestamp-start":1795744800,"backup-timestamp-stop":1795744812,"backup-type":"full"}
20261127-020000F_20261128-020000I={"backrest-format":5,"backup-timestamp-start":1795831200,"backup-timestamp-stop":1795831203,"backup-type":"incr"}

[cipher]
cipher-pass="another"

[db]
db-id=1
db-system-id=7311111111111111111
"""
EMPTY = TEXT[: TEXT.index("[backup:current]")] + TEXT[TEXT.index("[cipher]") :]


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def info() -> ModuleType:
    return module("plugins/filter/backup_info.py")


@pytest.fixture(scope="module")
def s3() -> ModuleType:
    return module("plugins/modules/s3_object.py")


def encrypted(text: str, password: str = PASSWORD) -> str:
    """By the program whose format it is."""
    command = ["openssl", "enc", "-aes-256-cbc", "-md", "sha1", "-pass", "stdin"]
    # The password is the first line, the text what follows it.
    done = subprocess.run(command, input=f"{password}\n{text}".encode(), capture_output=True, check=True)
    return base64.b64encode(done.stdout).decode()


def test_the_last_backup_is_told(info: ModuleType) -> None:
    assert info.backup_info(encrypted(TEXT), PASSWORD) == {
        "problem": "",
        "label": "20261127-020000F_20261128-020000I",
        "stopped": "2026-11-28 02:00:03 UTC",
        "backups": 2,
    }


def test_a_repository_without_a_backup_is_nothing_to_rebuild_from(info: ModuleType) -> None:
    assert info.backup_info(encrypted(EMPTY), PASSWORD) == {"problem": info.NO_BACKUP}


@pytest.mark.parametrize("number", range(40))
def test_another_password_opens_nothing(info: ModuleType, number: int) -> None:
    """Now and then the padding fits by chance: what comes out is not what pgBackRest writes all the same."""
    assert info.backup_info(encrypted(TEXT), f"wrong {number}") == {"problem": info.NOT_READ}


@pytest.mark.parametrize("content", [b"", b"Salted__", b"[backrest]\nbackrest-format=5\n", b"Salted__12345678abc"])
def test_what_was_never_encrypted_opens_nothing(info: ModuleType, content: bytes) -> None:
    assert info.backup_info(base64.b64encode(content).decode(), PASSWORD) == {"problem": info.NOT_READ}


def test_a_request_is_signed_as_amazon_shows_it(s3: ModuleType) -> None:
    """The example "GET Bucket (List Objects)" of the documentation of signature version 4."""
    found = s3.signed(
        "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "us-east-1",
        datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert found["authorization"].endswith("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")
    assert found["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()


def test_an_object_is_asked_for_by_its_path_and_a_bucket_by_its_list(s3: ModuleType) -> None:
    assert s3.address("https://10.0.0.1:9000", "backups", "a b/c.info") == "https://10.0.0.1:9000/backups/a%20b/c.info"
    assert s3.address("https://10.0.0.1:9000", "images", "") == "https://10.0.0.1:9000/images/?list-type=2&max-keys=1"


def test_a_refusal_is_told_by_its_code(s3: ModuleType) -> None:
    assert s3.refusal(404, "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>") == "NoSuchKey"
    assert s3.refusal(502, "<html>bad gateway</html>") == "HTTP 502"
