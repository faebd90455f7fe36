"""Variables that are right by themselves and wrong together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from .images import refusal
from .inventory import AGENT, EXAMPLE_DOMAIN, SECOND_SITE, SERVER, Inventory, Value, is_example
from .mistake import Mistake, show
from .names import closest

Lookup = Callable[[str], Value]
FREE_NETWORKS = ["10.42.0.0/16", "10.43.0.0/16", "10.142.0.0/16", "10.143.0.0/16", "172.30.0.0/16", "172.31.0.0/16"]
MEMBERS = ("postgres_members", "minio_members")


def check(inventory: Inventory, lookup: Lookup, services: Path) -> Iterator[Mistake]:
    """`lookup` gives a variable's value on the controller, or its default when the user has not set it."""
    yield from network_mistakes(inventory, lookup)
    yield from domain_mistakes(lookup)
    yield from profile_mistakes(inventory, lookup)
    yield from backup_mistakes(inventory, lookup)
    yield from memory_mistakes(lookup)
    yield from issuer_mistakes(lookup)
    yield from ingress_mistakes(lookup)
    yield from receiver_mistakes(lookup)
    yield from service_mistakes(lookup, services)


def notices(lookup: Lookup) -> Iterator[str]:
    """What is no mistake, and what somebody should know before it matters."""
    receivers = lookup("alertmanager_receivers")
    if receivers.value == []:
        yield (
            f"{receivers.where}: alertmanager_receivers is empty: make status and the status page show alerts, "
            "and nobody is told; to tell a channel of Slack: alertmanager_receivers: [{name: sre, slack: {}}] "
            "(docs/operations.md)"
        )
    image = lookup("grafana_image")
    if image.value == "":
        yield (
            f"{image.where}: grafana_image is empty: dashboards are kept in the cluster and nothing shows them; "
            "group_vars/all/versions.yml has the image that the platform is made for (docs/operations.md)"
        )


def network_mistakes(inventory: Inventory, lookup: Lookup) -> Iterator[Mistake]:
    networks: dict[str, ipaddress.IPv4Network] = {}
    for name in ("k3s_pod_cidr", "k3s_service_cidr"):
        try:
            networks[name] = ipaddress.IPv4Network(str(lookup(name).value))
        except ValueError:
            continue  # the schema has said so already
    addresses = {host: address for host, address in inventory.addresses().items() if not is_example(address)}

    def free() -> str:
        for candidate in map(ipaddress.IPv4Network, FREE_NETWORKS):
            taken = any(candidate.overlaps(network) for network in networks.values())
            if not taken and not any(address in candidate for address in addresses.values()):
                return str(candidate)
        return "10.200.0.0/16"

    for first, second in combinations(networks, 2):
        if networks[first].overlaps(networks[second]):
            value = lookup(second)
            yield Mistake(
                value.where,
                second,
                f"{networks[second]}, which overlaps {first} {networks[first]}",
                "networks that do not overlap",
                free(),
            )
    for name, network in networks.items():
        inside = [f"{host} ({address})" for host, address in addresses.items() if address in network]
        if inside:
            yield Mistake(
                lookup(name).where,
                name,
                f"{network}, which holds {', '.join(inside)}",
                "a network without any of the hosts",
                free(),
            )


def domain_mistakes(lookup: Lookup) -> Iterator[Mistake]:
    domain = lookup("platform_domain")
    if isinstance(domain.value, str) and EXAMPLE_DOMAIN.search(domain.value):
        yield Mistake(
            domain.where,
            "platform_domain",
            f"the documentation's {show(domain.value, '')}",
            "a domain of your own",
            "platform.mycompany.com",
        )


def profile_mistakes(inventory: Inventory, lookup: Lookup) -> Iterator[Mistake]:
    servers, hosts = len(inventory.groups.get(SERVER, [])), len(inventory.cluster())
    profile = lookup("platform_profile")
    if profile.value == "ha" and 0 < servers < 3:
        yield Mistake(
            inventory.place(SERVER),
            SERVER,
            f"{servers} host{'' if servers == 1 else 's'}",
            "three or five servers for platform_profile ha",
            "3 servers, or platform_profile: small",
        )
    for name in MEMBERS:
        members = lookup(name)
        if type(members.value) is int and members.value > hosts > 0:
            yield Mistake(
                members.where,
                name,
                f"{members.value} with {hosts} hosts",
                f"at most one member on each host of {SERVER} and {AGENT}",
                str(hosts),
            )


def backup_mistakes(inventory: Inventory, lookup: Lookup) -> Iterator[Mistake]:
    """A backup in the cluster is lost with the cluster: whoever runs for real has a place outside of it."""
    profile, environment = lookup("platform_profile").value, lookup("slipway_environment").value
    if inventory.groups.get(SECOND_SITE) or not (profile == "ha" or environment == "production"):
        return
    yield Mistake(
        inventory.source,
        SECOND_SITE,
        "no host",
        f"a host outside of the cluster that keeps the backups of {environment}",
        f"{SECOND_SITE}: {{hosts: {{backup-1: {{ansible_host: 10.20.0.31}}}}}}",
    )


def memory_mistakes(lookup: Lookup) -> Iterator[Mistake]:
    """Redis copies itself to rewrite its file, and the copy counts too."""
    maximum, resources = lookup("redis_maxmemory"), lookup("redis_resources").value
    limits = resources.get("limits") if isinstance(resources, dict) else None
    limit = limits.get("memory") if isinstance(limits, dict) else None
    wanted, found = in_bytes(maximum.value), in_bytes(limit)
    if wanted and found and found < 2 * wanted:
        yield Mistake(
            maximum.where,
            "redis_maxmemory",
            f"{maximum.value} with a limit of {limit} in redis_resources",
            "at most half of that limit",
            f"{max(found // 2**21, 1)}Mi",
        )


def in_bytes(quantity: object) -> int | None:
    """Kubernetes' way to write an amount of memory; None for what the schema refuses."""
    match = re.fullmatch(r"([1-9][0-9]*)([KMGT])i", str(quantity))
    return int(match[1]) * 1024 ** (" KMGT".index(match[2])) if match else None


def issuer_mistakes(lookup: Lookup) -> Iterator[Mistake]:
    """The issuer of the certificate that users meet is declared."""
    chosen, declared = lookup("ingress_certificate_issuer"), lookup("cert_manager_acme_issuers").value
    items = declared if isinstance(declared, list) else []
    known = ["platform-ca", *(str(item["name"]) for item in items if isinstance(item, dict) and "name" in item)]
    if isinstance(chosen.value, str) and chosen.value and chosen.value not in known:
        guess = closest(chosen.value, known, 0.6)
        yield Mistake(
            chosen.where,
            "ingress_certificate_issuer",
            show(chosen.value, ""),
            f"{guess} (did you mean that?)"
            if guess
            else "platform-ca or the name of an issuer of cert_manager_acme_issuers",
            guess or "platform-ca",
        )


def ingress_mistakes(lookup: Lookup) -> Iterator[Mistake]:
    """Upstream of ingress-nginx has ended, so its image has to be chosen."""
    image, accepted = lookup("ingress_nginx_image"), lookup("ingress_nginx_accept_unpatched").value
    chosen = lookup("ingress_controller")
    if chosen.value != "ingress-nginx" or not isinstance(image.value, str) or not isinstance(accepted, str):
        return
    found = refusal(image.value, accepted)
    if found:
        where = image.where if image.value else chosen.where
        yield Mistake(
            where, "ingress_nginx_image", *found, f"registry.mycompany.com/ingress-nginx/controller@sha256:{64 * '0'}"
        )


def receiver_mistakes(lookup: Lookup) -> Iterator[Mistake]:
    """Routes lead to receivers that exist, each once, and mail has a server."""
    receivers, routes, server = (lookup(f"alertmanager_{name}") for name in ("receivers", "routes", "smtp"))
    items = [item for item in receivers.value if isinstance(item, dict)] if isinstance(receivers.value, list) else []
    names = [str(item.get("name")) for item in items]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Mistake(receivers.where, "alertmanager_receivers", f"{name} twice", "each name once", f"{name}2")
    for index, route in enumerate(routes.value if isinstance(routes.value, list) else []):
        receiver = route.get("receiver") if isinstance(route, dict) else None
        if isinstance(receiver, str) and receiver not in names:
            guess = closest(receiver, names, 0.6)
            wanted = f"{guess} (did you mean that?)" if guess else "a name of alertmanager_receivers"
            path = f"alertmanager_routes[{index}].receiver"
            yield Mistake(routes.where, path, show(receiver, ""), wanted, guess or (names or ["sre"])[0])
    given = server.value if isinstance(server.value, dict) else {}
    mailed = any("email" in item for item in items)
    for part, example in (("host", "smtp.mycompany.com:587"), ("from", "alerts@mycompany.com")):
        if (mailed or given) and part not in given:
            wanted = "it, since a receiver has email" if mailed else "it beside the others"
            where = server.where if given else receivers.where
            yield Mistake(where, f"alertmanager_smtp.{part}", "nothing", wanted, f"{part}: {example}")


def service_mistakes(lookup: Lookup, services: Path) -> Iterator[Mistake]:
    """Every service that is enabled has a folder."""
    enabled = lookup("services_enabled")
    known = service_folders(services)
    for index, name in enumerate(enabled.value if isinstance(enabled.value, list) else []):
        if isinstance(name, str) and name not in known:
            guess = closest(name, known, 0.6)
            yield Mistake(
                enabled.where,
                f"services_enabled[{index}]",
                show(name, ""),
                f"{guess} (did you mean that?)" if guess else "the name of a folder in services/",
                guess or ", ".join(known),
            )


def service_folders(services: Path) -> list[str]:
    return sorted(path.parent.name for path in services.glob("*/service.yml"))
