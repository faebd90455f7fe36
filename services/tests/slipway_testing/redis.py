"""A Redis server of Debian's package on a port of its own, with users as the platform has them."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from slipway_testing.certificates import Authority
from slipway_testing.processes import free_port, stop, wait_until

# Each service has its own keys; whoever verifies tokens also reads what auth has revoked.
READS: Mapping[str, tuple[str, ...]] = {
    "auth": (),
    "api": ("auth:revoked-sessions",),
    "image": ("auth:revoked-sessions",),
}
ADMIN = "admin"


def acl_line(user: str, password: str, reads: tuple[str, ...] = ()) -> str:
    """As the role redis writes it: its own keys, no command that concerns the server or others."""
    keys = " ".join([f"~{user}:*", *(f"%R~{key}" for key in reads)])
    return f"user {user} on >{password} {keys} &{user}:* +@all -@admin -@dangerous"


@dataclass
class RedisServer:
    """A server that a test can stop and start again on the same port, empty."""

    host: str
    port: int
    directory: Path
    passwords: dict[str, str] = field(default_factory=dict)
    # The CA of its certificate; without one it speaks no TLS.
    ca: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def settings(self, user: str) -> dict[str, Any]:
        """The settings of the service of that name: those that are given, as the platform gives them."""
        tls = {"redis_tls": True, "platform_ca_file": self.ca} if self.ca else {}
        return {
            "redis_host": self.host,
            "redis_port": self.port,
            "redis_user": user,
            "redis_password": self.passwords[user],
            # A busy machine is not a dead Redis.
            "redis_timeout": 3.0,
            **tls,
        }

    def admin(self) -> "redis.Redis":
        """To arrange, or to look behind a service's back. To be closed by the caller."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            username=ADMIN,
            password=self.passwords[ADMIN],
            decode_responses=True,
            ssl=self.ca is not None,
            ssl_ca_certs=None if self.ca is None else str(self.ca),
            # Some tests give it a wrong name.
            ssl_check_hostname=False,
        )

    def start(self) -> None:
        log = self.directory / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["redis-server", str(self.directory / "redis.conf")],
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, self.process, log)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None

    def _answers(self) -> bool:
        try:
            with self.admin() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def running_redis(*names: str, authority: Authority | None = None) -> Iterator[RedisServer]:
    """A server without persistence: a stop is also a loss of everything that was in it.

    With names it speaks TLS only, with a certificate for them of that CA, or of one of its own.
    """
    if shutil.which("redis-server") is None:
        raise RuntimeError("no Redis server found: install the package redis-server")
    directory = Path(tempfile.mkdtemp(prefix="slipway-redis-"))
    server = RedisServer("127.0.0.1", free_port(), directory)
    server.passwords = {user: secrets.token_hex(16) for user in (ADMIN, *READS)}
    lines = ["user default off", f"user {ADMIN} on >{server.passwords[ADMIN]} ~* &* +@all"]
    lines += [acl_line(user, server.passwords[user], reads) for user, reads in READS.items()]
    (directory / "users.acl").write_text("\n".join(lines) + "\n")
    configuration: dict[str, Any] = {
        "bind": server.host,
        "port": server.port,
        "dir": directory,
        "aclfile": directory / "users.acl",
        "save": '""',
        "appendonly": "no",
        "maxmemory": "64mb",
        "maxmemory-policy": "volatile-lru",
    }
    if names:
        authority = authority or Authority(directory)
        certificate, key = authority.issue(*names, directory=directory)
        server.ca = authority.file
        tls = {"tls-cert-file": certificate, "tls-key-file": key, "tls-auth-clients": "no"}
        configuration |= {"port": 0, "tls-port": server.port, **tls}
    (directory / "redis.conf").write_text("".join(f"{name} {value}\n" for name, value in configuration.items()))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
