"""Brings a running cluster to its declared state: where the Service leads, Patroni's settings, databases and owners.

    ensure.py '{"settings": {"ttl": 20}, "databases": [{"name": "auth_db", "owner": "auth_user"}]}' [--check]

Runs in the member that leads. Prints one line per thing, "changed ..." or "unchanged ...". The kubelet brings new
passwords some time after they were declared: with --revision, a directory whose file `revision` says something else is
not used. Exit code 75 means that trying again later will help.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import databases
import leader_endpoint
import psycopg2
import settings
from errors import DeclarationError, NotYetError, require_declared
from kubernetes_api import ApiError, KubernetesApi

SCOPE = "postgres"
SECTIONS = {"settings", "databases"}


def read(text: str) -> dict[str, Any]:
    try:
        declaration = json.loads(text)
    except ValueError as error:
        raise DeclarationError(f"declaration: {error}, wanted JSON") from error
    if not isinstance(declaration, Mapping) or set(declaration) - SECTIONS:
        raise DeclarationError(f"declaration: found {text[:80]!r}, wanted an object of {', '.join(sorted(SECTIONS))}")
    return dict(declaration)


def require_revision(secrets: Path, revision: str) -> None:
    file = secrets / "revision"
    found = file.read_text(encoding="utf-8").strip() if file.is_file() else "none"
    if revision:
        require_declared(file, found, revision)


def ensure(declaration: Mapping[str, Any], options: argparse.Namespace) -> None:
    wanted = databases.parse(declaration.get("databases", []))
    require_revision(options.secrets, options.revision)
    if not options.check:
        print(leader_endpoint.publish(KubernetesApi.in_cluster(), leader_endpoint.Member.from_environment(SCOPE)))
    patroni = settings.Patroni(os.environ["POD_IP"])
    settings.ensure(patroni, declaration.get("settings", {}), check=options.check)
    connection = databases.connect(options.socket)
    try:
        databases.ensure(databases.Server(connection, check=options.check), wanted, options.secrets)
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Brings a running cluster to its declared state")
    parser.add_argument("declaration")
    parser.add_argument("--secrets", type=Path, default=Path("/run/secrets/postgres-databases"))
    parser.add_argument("--revision", default="", help="what the file `revision` in --secrets has to say")
    parser.add_argument("--socket", default="/run/postgresql")
    parser.add_argument("--check", action="store_true", help="say what would change and change nothing")
    options = parser.parse_args(arguments)
    try:
        ensure(read(options.declaration), options)
    except NotYetError as error:
        print("ensure:", error, file=sys.stderr)
        return os.EX_TEMPFAIL
    except (DeclarationError, ApiError, psycopg2.Error, OSError, KeyError, ValueError) as error:
        print("ensure:", " ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
