"""Makes the running server show the certificate that is mounted: it reads its files only when it is told to.

    certificate.py <SHA-256 of the file tls.crt that was declared>

Runs in each member. Prints "changed certificate" or "unchanged certificate". Exit code 75 means that trying again later
will help: the kubelet brings a new file some time after it was declared.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from errors import NotYetError, require_declared

CERTIFICATE = Path("/run/secrets/postgres-certificate/tls.crt")
POSTMASTER = Path("/var/lib/postgresql/data/postmaster.pid")
SERVER = ("127.0.0.1", 5432)
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
SECONDS = 10.0


def mounted(file: Path, wanted: str) -> bytes:
    """The certificate of the file, if that is what was declared."""
    content = file.read_bytes()
    require_declared(file, hashlib.sha256(content).hexdigest(), wanted)
    end = b"-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert((content.partition(end)[0] + end).decode())


def shown(server: tuple[str, int]) -> bytes:
    """The certificate that a new client is shown. Whether it is a good one is not the question here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(server, timeout=5) as plain:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise NotYetError("the server speaks no TLS, wanted it to")
            with context.wrap_socket(plain) as wrapped:
                return wrapped.getpeercert(binary_form=True) or b""
    except OSError as error:
        raise NotYetError(f"the server does not answer: {error}") from error


def reload() -> None:
    os.kill(int(POSTMASTER.read_text(encoding="utf-8").split()[0]), signal.SIGHUP)


def ensure(wanted: bytes, show: Callable[[], bytes], reload_files: Callable[[], None], seconds: float = SECONDS) -> str:
    if show() == wanted:
        return "unchanged certificate"
    reload_files()
    limit = time.monotonic() + seconds
    while show() != wanted:
        if time.monotonic() > limit:
            raise NotYetError(f"the server still shows another certificate {seconds:.0f} s after it was told to reload")
        time.sleep(0.2)
    return "changed certificate"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(ensure(mounted(CERTIFICATE, arguments[0]), lambda: shown(SERVER), reload))
    except (NotYetError, FileNotFoundError) as error:
        print("certificate:", error, file=sys.stderr)
        return os.EX_TEMPFAIL
    except (OSError, ValueError) as error:
        print("certificate:", f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
