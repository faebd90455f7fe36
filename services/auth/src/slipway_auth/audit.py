"""What has to be found again when somebody asks who did what: lines of the log with `audit: true`.

Request id, trace id and the client's address are in each of them; a password, a token or a user's name in none: names
are typed into the wrong field together with passwords, and an id is as good.
"""

from typing import Any

import structlog

log = structlog.get_logger()


def audit(event: str, **fields: Any) -> None:
    """`event` is a constant of the code; fields whose name speaks of tokens or passwords are redacted by the log."""
    log.info(event, audit=True, **fields)
