"""Hosts and groups: what the cluster needs of an inventory, whatever the variables say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .mistake import Mistake, show
from .names import closest

CLUSTER, SERVER, AGENT = "k3s_cluster", "server", "agent"
# A host outside of the cluster, for backups and copies.
SECOND_SITE = "second_site"
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# RFC 5737 and RFC 3849: never somebody's own host, so a value from there was not edited.
EXAMPLE_NETWORKS = [
    ipaddress.ip_network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
EXAMPLE_DOMAIN = re.compile(r"(^|\.)example(\.(com|net|org|edu))?$")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Value:
    """A variable's final value and where it was written."""

    value: Any
    where: str


@dataclass
class Inventory:
    source: str
    groups: Mapping[str, list[str]]
    variables: Mapping[str, Mapping[str, Value]]  # by host, then by name; the controller is `localhost`
    places: Mapping[str, str] = field(default_factory=dict)  # host or group -> file:line

    def place(self, name: str) -> str:
        return self.places.get(name, self.source)

    def cluster(self) -> list[str]:
        """The cluster's hosts, each once, in the order of the inventory."""
        return self._of(CLUSTER, SERVER, AGENT)

    def hosts(self) -> list[str]:
        """The cluster's hosts and that of the second site."""
        return self._of(CLUSTER, SERVER, AGENT, SECOND_SITE)

    def _of(self, *groups: str) -> list[str]:
        return list(dict.fromkeys(name for group in groups for name in self.groups.get(group, [])))

    def addresses(self) -> dict[str, Address]:
        """Hosts that are given by address; one given by name is left to DNS."""
        found = {}
        for host in self.hosts():
            value = self.host_value(host)
            try:
                found[host] = ipaddress.ip_address(str(value.value))
            except ValueError:
                continue
        return found

    def host_value(self, host: str) -> Value:
        return self.variables.get(host, {}).get("ansible_host", Value(host, self.place(host)))


def check(inventory: Inventory) -> Iterator[Mistake]:
    groups = list(group_mistakes(inventory))
    yield from groups
    if inventory.hosts():
        yield from name_mistakes(inventory)
        yield from address_mistakes(inventory)


def group_mistakes(inventory: Inventory) -> Iterator[Mistake]:
    groups = inventory.groups
    everyone = groups.get("all", [])
    if not everyone:
        yield Mistake(
            inventory.source,
            CLUSTER,
            "no hosts",
            f"at least one host in group {SERVER}",
            "server-1: {ansible_host: 10.20.0.11}",
        )
        return
    servers, agents = groups.get(SERVER, []), groups.get(AGENT, [])
    missing = [name for name in (CLUSTER, SERVER) if name not in groups]
    for name in missing:
        similar = closest(name, (known for known in groups if known not in ("all", "ungrouped")), 0.75)
        found = f"the group {similar}" if similar else "no such group"
        yield Mistake(
            inventory.place(similar or ""),
            name,
            found,
            f"a group {name}",
            f"{CLUSTER}: {{children: {{server: {{hosts: ...}}, agent: {{hosts: ...}}}}}}",
        )
    if SERVER in groups and not servers:
        yield Mistake(
            inventory.place(SERVER), SERVER, "no hosts", "1, 3 or 5 hosts", "server-1: {ansible_host: 10.20.0.11}"
        )
    for host in servers:
        if host in agents:
            yield Mistake(
                inventory.place(host),
                host,
                f"it in the groups {SERVER} and {AGENT}",
                "each host in one of the two",
                f"{host} in {SERVER} alone (servers run workloads too)",
            )
    outside = groups.get(SECOND_SITE, [])
    for host in outside:
        if host in groups.get(CLUSTER, []) or host in servers or host in agents:
            yield Mistake(
                inventory.place(SECOND_SITE),
                host,
                f"it in {SECOND_SITE} and in the cluster",
                "a host outside of the cluster: what is on it has to outlive the cluster",
                f"{SECOND_SITE}: {{hosts: {{backup-1: {{ansible_host: 10.20.0.31}}}}}}",
            )
    if len(outside) > 1:
        yield Mistake(
            inventory.place(SECOND_SITE),
            SECOND_SITE,
            f"{len(outside)} hosts",
            "one host, or none",
            f"{outside[0]} alone",
        )
    if servers and len(servers) % 2 == 0:
        yield Mistake(
            inventory.place(SERVER),
            SERVER,
            f"{len(servers)} hosts",
            "an odd number, for etcd's majority",
            f"{len(servers) - 1} or {len(servers) + 1} servers",
        )
    if missing:
        return
    for host in groups[CLUSTER]:
        if host not in servers and host not in agents:
            yield Mistake(
                inventory.place(host),
                host,
                f"it in {CLUSTER} alone",
                f"each host in {SERVER} or {AGENT}",
                f"{host} below {CLUSTER}.children.{AGENT}.hosts",
            )
    for host in (*servers, *agents):
        if host not in groups[CLUSTER]:
            yield Mistake(
                inventory.place(host),
                host,
                f"it outside of {CLUSTER}",
                f"{SERVER} and {AGENT} as children of {CLUSTER}",
                f"{CLUSTER}: {{children: {{server: ..., agent: ...}}}}",
            )


def name_mistakes(inventory: Inventory) -> Iterator[Mistake]:
    for host in inventory.hosts():
        if HOST_NAME.fullmatch(host) is None:
            suggestion = re.sub(r"[^a-z0-9-]+", "-", host.lower()).strip("-")[:63].strip("-") or "server-1"
            if re.fullmatch(r"[0-9.]+|.*:.*", host):
                suggestion = f"server-1: {{ansible_host: {host}}}"
            yield Mistake(
                inventory.place(host),
                "host name",
                show(host, ""),
                "lower-case letters, digits and dashes (at most 63), as node names are",
                suggestion,
            )


def address_mistakes(inventory: Inventory) -> Iterator[Mistake]:
    owner: dict[Any, str] = {}
    addresses = inventory.addresses()
    for host in inventory.hosts():
        value = inventory.host_value(host)
        key = addresses.get(host, value.value)
        if key in owner:
            yield Mistake(
                value.where,
                f"{host}.ansible_host",
                f"{key}, which {owner[key]} has too",
                "an address of its own for each host",
                free_address(addresses),
            )
        owner.setdefault(key, host)
    for host, address in addresses.items():
        if address.version == 6:
            yield Mistake(
                inventory.host_value(host).where,
                f"{host}.ansible_host",
                str(address),
                "an IPv4 address (IPv6 and mixed clusters are not supported)",
                "10.20.0.11",
            )
    examples = [str(address) for address in addresses.values() if is_example(address)]
    if examples:
        yield Mistake(
            inventory.source,
            "ansible_host",
            "the documentation's " + ", ".join(examples),
            "the addresses of your own hosts",
            "10.20.0.11",
        )


def is_example(address: Address) -> bool:
    return any(address in network for network in EXAMPLE_NETWORKS)


def free_address(addresses: Mapping[str, Address]) -> str:
    """The next address that no host has."""
    taken = set(addresses.values())
    candidate = max((address for address in taken if address.version == 4), default=None)
    return str(candidate + 1) if candidate else "10.20.0.12"
