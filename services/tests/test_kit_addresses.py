"""Whose address counts: a client can write what it wants into X-Forwarded-For, but not to the right of our proxies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slipway_kit.addresses import client_address, parse_networks
from starlette.types import Scope

PROXIES = parse_networks("10.42.0.0/16, 10.43.0.0/16,fd00:42::/56")


def scope(peer: str | None, *forwarded: str) -> Scope:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in forwarded)]
    return {"type": "http", "client": (peer, 50000) if peer is not None else None, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        # Without a proxy, or with one that nobody trusts, it is the peer.
        ("203.0.113.9", (), "203.0.113.9"),
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
        ("10.42.1.2", (), "10.42.1.2"),
        # One proxy of ours, and several in a row.
        ("10.42.1.2", ("203.0.113.9",), "203.0.113.9"),
        ("10.42.1.2", ("203.0.113.9, 10.43.0.7",), "203.0.113.9"),
        # What the client wrote itself stands on the left and is not believed.
        ("10.42.1.2", ("1.1.1.1, 203.0.113.9",), "203.0.113.9"),
        ("10.42.1.2", ("10.42.9.9, 203.0.113.9, 10.42.3.3",), "203.0.113.9"),
        # Headers of the same name are one list.
        ("10.42.1.2", ("1.1.1.1", "203.0.113.9"), "203.0.113.9"),
        # A caller inside of the cluster: all hops are trusted, so it is the leftmost one.
        ("10.42.1.2", ("10.42.7.7, 10.42.3.3",), "10.42.7.7"),
        # Rubbish ends the walk.
        ("10.42.1.2", ("unknown",), "10.42.1.2"),
        ("10.42.1.2", ("203.0.113.9, ",), "10.42.1.2"),
        ("10.42.1.2", ("203.0.113.9, evil\x00, 10.42.3.3",), "10.42.3.3"),
        ("10.42.1.2", ("203.0.113.9:4711",), "10.42.1.2"),
        # IPv6, also as the form that IPv4 takes in it.
        ("fd00:42::1", ("2001:DB8::0:1",), "2001:db8::1"),
        ("::ffff:10.42.1.2", ("::ffff:203.0.113.9",), "203.0.113.9"),
        # No peer (a socket file), or none that is an address.
        (None, ("203.0.113.9",), ""),
        ("testclient", ("203.0.113.9",), ""),
    ],
)
def test_client_address(peer: str | None, forwarded: tuple[str, ...], expected: str) -> None:
    assert client_address(scope(peer, *forwarded), PROXIES) == expected


def test_nobody_is_trusted_by_default() -> None:
    assert client_address(scope("10.42.1.2", "203.0.113.9"), ()) == "10.42.1.2"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n")), max_size=5))
def test_nothing_that_a_client_writes_moves_its_address(written: list[str]) -> None:
    """The proxy appends the real address to whatever came."""
    assert client_address(scope("10.42.1.2", *written, "203.0.113.9"), PROXIES) == "203.0.113.9"


def test_networks() -> None:
    assert parse_networks("") == parse_networks(" , ") == ()
    assert [str(network) for network in parse_networks("10.0.0.1,fd00::/8")] == ["10.0.0.1/32", "fd00::/8"]
    for wrong in ("10.0.0.1/8", "pods", "10.0.0.0/33"):
        with pytest.raises(ValueError, match="separated by commas") as error:
            parse_networks(f"10.42.0.0/16,{wrong}")
        assert wrong in str(error.value)
        assert "\n" not in str(error.value)
