"""Filter `exec_code`: how a task of kubernetes.core.k8s_exec ended, as one number to repeat it by.

The container runtime now and then cannot start a command (seen: runc, "read init-p: connection reset by peer"), or the
connection breaks. The API then answers with something that is no exit code, and the module falls over it. What the
roles run in pods brings something to its declared state, so it may be tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# EX_TEMPFAIL of sysexits.h: the commands that the roles run in pods say with it themselves that it is too early.
TRY_LATER = 75


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"exec_code": exec_code}


def exec_code(result: Mapping[str, Any]) -> int:
    """The command's exit code; 75 when the module fell over; 1 when it failed with a reason, as for a pod not found.

    While `until` is asked, ansible-core 2.19 has not yet put the text of an exception into `msg`.
    """
    if "rc" in result:
        return int(result["rc"])
    return TRY_LATER if "exception" in result and "msg" not in result else 1
