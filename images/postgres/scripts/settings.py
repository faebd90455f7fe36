"""Brings Patroni's dynamic configuration to the declared state; what stands in its files is read only at bootstrap.

Only what is declared is compared, so that `pause` and other marks of an operator stay; but among postgresql.parameters
what is not declared is removed. A member that runs with an older value of a parameter that only a restart can change
is named in a line "restart <member>".
"""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

Document = dict[str, Any]
EXACT = ("postgresql", "parameters")  # the one place where undeclared means unwanted


def difference(wanted: Document, found: Document, path: tuple[str, ...] = ()) -> Document:
    """The smallest patch that makes `found` say what `wanted` says; null removes a key."""
    patch: Document = {}
    for key, value in wanted.items():
        old = found.get(key)
        if isinstance(value, dict):
            inner = difference(value, old if isinstance(old, dict) else {}, (*path, key))
            if inner or not isinstance(old, dict):
                patch[key] = inner
        elif value is None:
            if key in found:
                patch[key] = None
        elif old != value:
            patch[key] = value
    if path == EXACT:
        patch.update({key: None for key in found if key not in wanted})
    return patch


def flatten(document: Document, prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in sorted(document.items()):
        flat += flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]
    return flat


class Patroni:
    """The REST API of this member. It takes changes from members only, so it is called by the pod's own address."""

    def __init__(self, address: str) -> None:
        self._url = f"http://[{address}]:8008" if ":" in address else f"http://{address}:8008"

    def request(self, method: str, path: str, body: Document | None = None) -> Document:
        request = urllib.request.Request(  # noqa: S310 the URL is this pod's
            self._url + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer: Document = json.load(response)
            return answer

    def members_to_restart(self) -> list[str]:
        members = self.request("GET", "/cluster")["members"]
        return sorted(member["name"] for member in members if member.get("pending_restart"))


def ensure(patroni: Patroni, wanted: Document, *, check: bool) -> None:
    found = patroni.request("GET", "/config")
    patch = difference(wanted, found)
    if patch and not check:
        patroni.request("PATCH", "/config", patch)
        # A member sees the new configuration in its next loop and says in the one after whether it needs a restart.
        time.sleep(2 * int(wanted.get("loop_wait", 10)) + 1)
    for name, value in flatten(patch):
        print("changed", name, json.dumps(value))
    if not patch:
        print("unchanged settings")
    for member in patroni.members_to_restart():
        print("restart", member)
