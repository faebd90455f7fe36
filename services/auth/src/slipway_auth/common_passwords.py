"""Passwords that everybody tries first (OWASP ASVS 6.2.4): checked against a list that is part of the package."""

from functools import cache
from importlib.resources import files

from slipway_kit.problems import Problem


@cache
def common_passwords() -> frozenset[str]:
    """In small letters; those shorter than what is accepted anyway are not among them."""
    text = files("slipway_auth").joinpath("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def refuse_common(password: str, username: str, field: str) -> None:
    """Problem 422 for one of the list, whatever its case, and for the user's own name; `field` is that of the body."""
    folded = password.lower()
    if folded not in common_passwords() and folded != username:
        return
    raise Problem(
        422,
        "invalid-request",
        "1 field(s) do not have the required form.",
        extra={
            "errors": [
                {
                    "code": "common-password",
                    "detail": "This password is one of those that are tried first. Choose another one.",
                    "pointer": f"#/{field}",
                }
            ]
        },
    )
