"""The page as it runs: its built files behind nginx with the image's own configuration, and TLS before it.

Both are Debian's nginx on ports of their own. The front stands for the ingress: `/api` goes to the gateway, the rest to
the page, and both are told that the request came from outside.
"""

import datetime
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from slipway_testing.processes import free_port, stop, wait_until

ROOT = Path(__file__).resolve().parents[3]
CONFIGURATION = ROOT / "images" / "web" / "nginx.conf"
HOST = "slipway.test"

_FRONT = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path client-body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto https;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_read_timeout 60s;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {directory}/front.crt;
    ssl_certificate_key {directory}/front.key;
    location /api/ {{ proxy_pass {gateway}; }}
    location / {{ proxy_pass {page}; }}
  }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx: where it listens, and the file that its lines go to."""

    url: str
    log: Path


def built_page(out: Path) -> Path:
    """The files of the page, built from its sources as for the image; compressed twins beside them."""
    command = [ROOT / "scripts" / "web", "build", "--", "--outDir", out, "--emptyOutDir", "--logLevel", "warn"]
    subprocess.run([str(word) for word in command], cwd=ROOT, check=True)
    files = [path for path in out.rglob("*") if path.suffix in (".html", ".js", ".css", ".svg", ".txt")]
    subprocess.run(["gzip", "-9", "--keep", "--no-name", *map(str, files)], check=True)
    # As in the image, where files have no age.
    for path in out.rglob("*"):
        os.utime(path, (0, 0))
    return out


@contextmanager
def running_page(files: Path) -> Iterator[Nginx]:
    """The image's configuration as it is, but for the port, the place of the files and the log."""
    with open_directory() as directory:
        port, log = free_port(), directory / "access.log"
        text = CONFIGURATION.read_text()
        for old, new in (
            ("listen 3000 ", f"listen 127.0.0.1:{port} "),
            ("root /srv/web;", f"root {files};"),
            ("access_log /dev/stdout json;", f"access_log {log} json;"),
        ):
            assert text.count(old) == 1, f"{CONFIGURATION}: found {text.count(old)} of {old!r}, wanted 1"
            text = text.replace(old, new)
        url = f"http://127.0.0.1:{port}"
        with _nginx(directory, text, f"{url}/health"):
            yield Nginx(url, log)


@contextmanager
def running_front(page: str, gateway: str) -> Iterator[Nginx]:
    """TLS for slipway.test on a port of its own, with a certificate that nobody knows."""
    with open_directory() as directory:
        _certificate(directory)
        port = free_port()
        text = _FRONT.format(port=port, directory=directory, gateway=gateway, page=page)
        with _nginx(directory, text, f"https://127.0.0.1:{port}/health"):
            yield Nginx(f"https://{HOST}:{port}", directory / "nginx.log")


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that other users can read, gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="slipway-web-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _nginx(directory: Path, configuration: str, probe: str) -> Iterator[None]:
    file, log = directory / "nginx.conf", directory / "nginx.log"
    file.write_text(configuration)
    command = ["nginx", "-e", "stderr", "-p", f"{directory}/", "-c", str(file)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _answers(probe), process, log)
        yield
    finally:
        stop(process)
    found = re.findall(r"^.*\[(?:error|crit|alert|emerg)\].*$", log.read_text(), re.MULTILINE)
    # What tests did to them, they say; anything else is a mistake in a configuration.
    told = ("connect() failed", "upstream", "too large body")
    found = [line for line in found if not any(words in line for words in told)]
    assert not found, found


def _answers(url: str) -> bool:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=1, context=anybody) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _certificate(directory: Path) -> None:
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "front.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "front.key").write_bytes(pem)
