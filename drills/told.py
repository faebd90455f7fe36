"""Receivers of the drills' own, declared as users declare theirs: in an inventory and in the vault of secrets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from alert_sink import Sink
from cluster_client import Client
from controller import playbook
from secret_store import Store

from drills.installation import DrillError

ADDRESS = "sre@slipway.test"
INVENTORY = "inventories/local"


@dataclass(frozen=True)
class Message:
    """What a receiver was told: an alert with its labels, and whether it fires or is over."""

    firing: bool
    labels: dict[str, str]

    @property
    def name(self) -> str:
        return self.labels["alertname"]

    @property
    def subject(self) -> str:
        """Its name and what it is about."""
        places = ("namespace", "service", "job", "pod", "host", "instance")
        about = " ".join(self.labels[label] for label in places if label in self.labels)
        return f"{self.name} ({about})" if about else self.name

    def about(self, alert: str, labels: dict[str, str]) -> bool:
        return self.labels["alertname"] == alert and labels.items() <= self.labels.items()


@dataclass(frozen=True)
class Told:
    """What has arrived at the receivers."""

    sink: Sink
    client: Client

    def raw(self) -> list[dict[str, Any]]:
        return self.sink.messages(self.client)


def messages(raw: Sequence[dict[str, Any]]) -> list[Message]:
    """What the webhook was told, alert by alert; it is the only one that gets all labels."""
    return [
        Message(alert["status"] == "firing", alert["labels"])
        for one in raw
        if one["to"] == "/webhook"
        for alert in one["body"]["alerts"]
    ]


def told_by(raw: Sequence[dict[str, Any]], alert: str) -> dict[str, tuple[bool, bool]]:
    """For Slack and mail: whether each was told that an alert fires, and that it is over. Titles carry its name."""
    titles: dict[str, list[str]] = {"slack": [], "mail": []}
    for one in raw:
        if one["to"] == "/slack":
            titles["slack"] += [shown["title"] for shown in one["body"]["attachments"]]
        elif one["to"] == [ADDRESS]:
            titles["mail"].append(one["subject"])
    wanted = f"{alert} ("
    return {
        receiver: (
            any(wanted in title and not title.startswith("Over: ") for title in found),
            any(title.startswith(f"Over: {wanted}") for title in found),
        )
        for receiver, found in titles.items()
    }


def variables(sink: Sink) -> dict[str, Any]:
    """The inventory's part. Messages follow each other soon, so that ends are seen soon; alerts wait as shipped."""
    return {
        "alertmanager_receivers": [{"name": "drill", "slack": {}, "email": {"to": ADDRESS}, "webhook": {}}],
        "alertmanager_smtp": {"host": sink.mail, "from": "alerts@slipway.test", "tls": False},
        "alertmanager_group_wait": "5s",
        "alertmanager_group_interval": "10s",
    }


@contextmanager
def told(sink: Sink, client: Client, state: Path) -> Iterator[Told]:
    """Have the platform's Alertmanager tell a sink, then again whom the inventory names.

    Secrets are added to a copy of the environment's vault, which is all that a run with other secrets needs.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy, inventory = Path(directory, state.name), Path(directory, "inventory")
        shutil.copytree(state, copy)
        store = Store(copy / "secrets.yml", copy / "vault.key")
        content = store.read()
        if content is None:
            raise DrillError(f"{state}: found no secrets, wanted those of a running lab")
        addresses = {"drill_slack_url": f"{sink.web}/slack", "drill_webhook_url": f"{sink.web}/webhook"}
        store.write({**content, "alert_secrets": {**(content.get("alert_secrets") or {}), **addresses}})
        (inventory / "group_vars").mkdir(parents=True)
        (inventory / "hosts.yml").write_text("---\nk3s_cluster: {}\n", encoding="utf-8")
        (inventory / "group_vars" / "all.yml").write_text(
            yaml.safe_dump(variables(sink), explicit_start=True), encoding="utf-8"
        )
        try:
            _apply("--inventory", INVENTORY, "--inventory", str(inventory), SLIPWAY_STATE=directory)
            yield Told(sink, client)
        finally:
            _apply("--inventory", INVENTORY)


def _apply(*inventory: str, **environment: str) -> None:
    run = playbook("site.yml", "--tags", "alertmanager", *inventory, variables=None, **environment)
    if run.code != 0:
        raise DrillError(f"site.yml --tags alertmanager failed: {run.failure}")
