"""Whose request it is: the peer of the connection, or what our own proxies say about it."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """`10.42.0.0/16, fd00::/8` as networks; ValueError, in one line, says what is wanted."""
    networks = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(word))
        except ValueError:
            raise ValueError(
                f"networks separated by commas, and {word!r} is none (no bits may be set behind the prefix)"
            ) from None
    return tuple(networks)


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The address of the client in the form of `ipaddress`, or an empty string when the server does not know its peer.

    Each proxy appends the address that it saw, so only the right end of X-Forwarded-For can be believed: we walk from
    there as long as the addresses are those of trusted proxies. The first other one is the client; whatever stands to
    the left of it came from the client itself.
    """
    client = scope.get("client")
    peer = _parse(client[0]) if client else None
    if peer is None:
        return ""
    if not _is_in(peer, trusted):
        return str(peer)
    address = peer
    for hop in reversed(_hops(scope)):
        found = _parse(hop)
        if found is None:
            # Not what a proxy of ours writes. The last good address is all that is known.
            break
        address = found
        if not _is_in(found, trusted):
            break
    return str(address)


def _hops(scope: Scope) -> list[str]:
    """All headers of that name in the order in which they came: they are one list (RFC 9110, 5.3)."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return [hop.strip() for value in values for hop in value.split(",")]


# The same few proxies and clients come again and again.
@lru_cache(maxsize=4096)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # One client is one client, whichever socket it came in by.
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
