"""A MinIO server on a directory and a port of its own."""

import os
import secrets
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from slipway_testing.processes import free_port, stop, wait_until


@dataclass(frozen=True)
class ObjectStore:
    address: str
    access_key: str
    secret_key: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def client(self) -> Minio:
        return Minio(self.address, self.access_key, self.secret_key, secure=False, region="us-east-1")

    def keys(self, bucket: str) -> set[str]:
        return {str(entry.object_name) for entry in self.client.list_objects(bucket, recursive=True)}


def binary() -> Path:
    """What SLIPWAY_TEST_MINIO names, or what the artifact store has."""
    named = os.environ.get("SLIPWAY_TEST_MINIO")
    if named:
        return Path(named)
    cache = Path(os.environ.get("SLIPWAY_CACHE", "~/.cache/slipway")).expanduser()
    found = sorted(cache.glob("store/minio/*/minio"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RuntimeError(
            "no MinIO server found: run `python plugins/module_utils/artifact_store.py build minio`, "
            "or set SLIPWAY_TEST_MINIO"
        )
    return found[-1]


@contextmanager
def running_minio() -> Iterator[ObjectStore]:
    server = binary()
    directory = Path(tempfile.mkdtemp(prefix="slipway-minio-"))
    store = ObjectStore(f"127.0.0.1:{free_port()}", "test-root", secrets.token_hex(16))
    log = directory / "log"
    environment = {
        "HOME": str(directory),
        "MINIO_ROOT_USER": store.access_key,
        "MINIO_ROOT_PASSWORD": store.secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # Without it MinIO refuses a directory on the root file system.
        "MINIO_CI_CD": "1",
    }
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(server), "server", "--quiet", "--address", store.address, str(directory / "data")],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: _answers(store), process, log)
            yield store
        finally:
            stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _answers(store: ObjectStore) -> bool:
    try:
        with urllib.request.urlopen(f"{store.url}/minio/health/cluster", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
