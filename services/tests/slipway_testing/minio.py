"""A MinIO server on a directory and a port of its own."""

import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import urllib3
from minio import Minio

from slipway_testing.certificates import Authority
from slipway_testing.processes import free_port, stop, wait_until


@dataclass(frozen=True)
class ObjectStore:
    address: str
    access_key: str
    secret_key: str
    # The CA of its certificate; without one it speaks no TLS.
    ca: Path | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.address}"

    @cached_property
    def trust(self) -> ssl.SSLContext | None:
        """What its clients verify it with."""
        return ssl.create_default_context(cafile=self.ca) if self.ca else None

    @property
    def client(self) -> Minio:
        pool = urllib3.PoolManager(ca_certs=str(self.ca)) if self.ca else None
        return Minio(
            self.address,
            self.access_key,
            self.secret_key,
            secure=self.ca is not None,
            region="us-east-1",
            http_client=pool,
        )

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
def running_minio(authority: Authority | None = None) -> Iterator[ObjectStore]:
    """A server of its own; with a CA it speaks TLS only, with a certificate of it for its address."""
    server = binary()
    directory = Path(tempfile.mkdtemp(prefix="slipway-minio-"))
    if authority is not None:
        certificate, key = authority.issue("127.0.0.1", directory=directory)
        certificate.rename(directory / "public.crt")
        key.rename(directory / "private.key")
    address, password = f"127.0.0.1:{free_port()}", secrets.token_hex(16)
    store = ObjectStore(address, "test-root", password, authority.file if authority else None)
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
                [
                    str(server),
                    "server",
                    "--quiet",
                    "--certs-dir",
                    str(directory),
                    "--address",
                    store.address,
                    str(directory / "data"),
                ],
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
        with urllib.request.urlopen(f"{store.url}/minio/health/cluster", timeout=1, context=store.trust) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
