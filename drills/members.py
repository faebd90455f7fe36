"""What Patroni says about its members, judged: a drill that begins with a broken cluster proves nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# As GET /cluster of Patroni's REST API gives them: name, role, state, timeline, lag.
Member = Mapping[str, Any]


def named(members: Sequence[Member], role: str) -> str:
    """The one member of a role, or nobody's empty name."""
    names = [str(member["name"]) for member in members if member["role"] == role]
    return names[0] if len(names) == 1 else ""


def trouble(members: Sequence[Member], *, wanted: int, synchronous: bool, at_rest: bool = True) -> str:
    """Why a drill cannot start: one line. Empty when there is one leader and all others stream without lag.

    While somebody writes (not `at_rest`) a standby in sync can look behind: the two positions are of different moments.
    """
    found = ", ".join(f"{m['name']} {m['role']} {m['state']}" for m in members) or "no members"
    standby = "sync_standby" if synchronous else "replica"
    roles = sorted(str(member["role"]) for member in members)
    if roles != sorted(["leader"] + [standby] * (wanted - 1)):
        return f"found {found}; wanted a leader and {wanted - 1} {standby}"
    states = {"leader": "running", standby: "streaming"}
    if any(member["state"] != states[member["role"]] for member in members):
        return f"found {found}; wanted a running leader and {standby}s that stream"
    if len({member["timeline"] for member in members}) > 1:
        return f"found {found} on different timelines; wanted them on one"
    if at_rest and (behind := [member for member in members if member["role"] == standby and member.get("lag") != 0]):
        return f"found {behind[0]['name']} behind by {behind[0].get('lag')} bytes; wanted it with the leader"
    return ""
