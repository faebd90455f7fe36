"""Which headers go along in either direction. Bytes in, so that what comes back goes out as it came."""

from collections.abc import Iterable, Sequence

from slipway_kit.middleware import REQUEST_ID_HEADER
from slipway_kit.service_tokens import SERVICE_TOKEN_HEADER

RawHeaders = Sequence[tuple[bytes, bytes]]

# RFC 9110, 7.6.1: these belong to one connection; whatever `Connection` names joins them.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Set anew by the client, or by the server that answers our own client.
_NOT_FORWARDED = HOP_BY_HOP | {"host", "expect", REQUEST_ID_HEADER}
_NOT_RETURNED = HOP_BY_HOP | {"date", "server", REQUEST_ID_HEADER, "x-content-type-options"}
# Who somebody is, is said by tokens alone, and where from by us alone. A service that believed such a header must never
# get the client's.
_OURS = frozenset({SERVICE_TOKEN_HEADER, "forwarded", "x-real-ip", "x-client-ip", "true-client-ip"})
_OUR_PREFIXES = ("x-user-", "x-forwarded-")
FORWARDED_FOR_HEADER = "x-forwarded-for"


def forwarded(
    headers: RawHeaders, *, request_id: str, client: str, service_token: str, cookies: bool
) -> list[tuple[str, str]]:
    """Those of a client's request that the service behind gets, and ours."""
    out = [
        (name, value.decode("utf-8", "replace"))
        for name, value in _end_to_end(headers, _NOT_FORWARDED)
        if not _is_ours(name) and (cookies or name != "cookie")
    ]
    out.append((REQUEST_ID_HEADER, request_id))
    out.append((SERVICE_TOKEN_HEADER, service_token))
    if client:
        out.append((FORWARDED_FOR_HEADER, client))
    return out


def returned(headers: RawHeaders, *, cookies: bool) -> list[tuple[bytes, bytes]]:
    """Those of an answer that the client gets."""
    return [
        (name.encode("latin-1"), value)
        for name, value in _end_to_end(headers, _NOT_RETURNED)
        if cookies or name != "set-cookie"
    ]


def _end_to_end(headers: RawHeaders, dropped: frozenset[str]) -> Iterable[tuple[str, bytes]]:
    pairs = [(name.decode("latin-1").lower(), value) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in pairs
        if name == "connection"
        for word in value.decode("latin-1").split(",")
    }
    return ((name, value) for name, value in pairs if name not in dropped and name not in named)


def _is_ours(name: str) -> bool:
    # Some servers take `_` for `-`.
    plain = name.replace("_", "-")
    return plain in _OURS or plain.startswith(_OUR_PREFIXES)
