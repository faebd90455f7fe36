"""Backups outside of the cluster, and all that is brought back from them: in an installation of the test's own, with a
folder of its own at the second site."""

from __future__ import annotations

import json
import re
import secrets as random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from controller import Inventory, Run
from leaks import leaked
from object_store import store
from postgres_installation import Installation, leader, members, superuser

NAMESPACE = "molecule-postgres-backups"
IN_SYNC = [("Leader", "running"), ("Sync Standby", "streaming")]
ARCHIVED_SECONDS = 90  # archive_timeout, and what the way there takes
FIRST_BACKUP_SECONDS = 180

pytestmark = pytest.mark.explain(NAMESPACE)


class Backed(Installation):
    """An installation of two members with backups."""

    def __init__(self, state: Path, ca: str, image: str, address: str, keys: dict[str, str]) -> None:
        super().__init__(NAMESPACE, state, image)
        self.folder = f"molecule/{random.token_hex(8)}"
        self.variables |= {
            "postgres_members": 2,
            "postgres_backup_endpoint": f"https://{address}:9000",
            "postgres_backup_path": f"/{self.folder}",
            "postgres_backup_access_key": keys["access_key"],
            "postgres_backup_secret_key": keys["secret_key"],
            "postgres_backup_cipher_password": random.token_hex(20),
            "postgres_backup_ca_certificate": ca,
        }

    def take(self, entry: str, **variables: Any) -> Run:
        return self.apply(applied_tasks=entry, **variables)


def info(pods: Pods) -> dict[str, Any]:
    """Return what the repository holds, as its operator is told."""
    command = ["pgbackrest", "--stanza=postgres", "info", "--output=json"]
    ended = pods.execute(NAMESPACE, leader(pods, NAMESPACE), *command, container="backup")
    assert ended.code == 0, ended.errors
    [found] = json.loads(ended.output)
    return dict(found)


def labels(pods: Pods) -> list[str]:
    return [backup["label"] for backup in info(pods)["backup"]]


def ask(pods: Pods, statement: str, member: str = "") -> list[str]:
    return superuser(pods, NAMESPACE, statement, member, "one_db")


def words(pods: Pods, member: str = "") -> list[str]:
    return ask(pods, "SELECT word FROM precious ORDER BY word", member)


def moment(pods: Pods) -> str:
    return ask(pods, "SELECT clock_timestamp() AT TIME ZONE 'UTC'")[0]


def in_sync(pods: Pods) -> bool:
    wanted = partial(members, pods, NAMESPACE)
    return bool(pods.eventually(lambda: sorted(wanted().values()), IN_SYNC) == IN_SYNC)


@pytest.fixture(scope="module")
def backed(
    pods: Pods, client: Client, state: Path, ca: str, inventory: Inventory, secrets: dict[str, Any]
) -> Iterator[Backed]:
    """Return an installation, made from nothing."""
    image = pods.core.read_namespaced_pod("postgres-0", "infrastructure").spec.containers[0].image
    [host] = inventory.hosts("second_site")
    keys = secrets["second_site_keys"]["backups"]
    with pods.namespace(NAMESPACE):
        found = Backed(state, ca, image, inventory.address(host), keys)
        run = found.apply()
        assert run.code == 0, run.output
        hidden = {name: value for name, value in found.variables.items() if "key" in name or "password" in name}
        assert leaked(hidden, run.output) == []
        ask(pods, "CREATE TABLE precious (word text)")
        yield found
    endpoint, steps = f"{inventory.address(host)}:9000", [["empty", "backups", found.folder]]
    assert client.call(store, endpoint=endpoint, ca=ca, key=keys, steps=steps) == ["done"]


def test_a_second_run_changes_nothing(backed: Backed) -> None:
    run = backed.apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_the_first_backup_is_made_without_being_asked_for(backed: Backed, pods: Pods) -> None:
    kinds = partial(lambda: [backup["type"] for backup in info(pods)["backup"]])
    assert pods.eventually(kinds, ["full"], FIRST_BACKUP_SECONDS) == ["full"]


def test_what_is_written_is_outside_within_a_minute(backed: Backed, pods: Pods) -> None:
    ask(pods, "INSERT INTO precious VALUES ('archived')")
    [segment] = ask(pods, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    began = time.monotonic()

    def there() -> bool:
        return bool(ask(pods, "SELECT last_archived_wal FROM pg_stat_archiver")[0][:24] >= segment)

    assert pods.eventually(there, True, ARCHIVED_SECONDS) is True
    print(f"the segment of an insert was archived after {time.monotonic() - began:.0f} s")
    assert info(pods)["archive"][0]["max"] >= segment


def test_only_the_leader_archives(backed: Backed, pods: Pods) -> None:
    counts = {
        name: int(ask(pods, "SELECT archived_count FROM pg_stat_archiver", name)[0])
        for name in ("postgres-0", "postgres-1")
    }
    own = leader(pods, NAMESPACE)
    assert counts.pop(own) > 0
    assert set(counts.values()) == {0}


def test_keys_are_in_no_config_map_environment_or_command_line(backed: Backed, pods: Pods) -> None:
    hidden = {name: value for name, value in backed.variables.items() if "key" in name or "password" in name}
    maps = pods.core.list_namespaced_config_map(NAMESPACE).items
    assert "archive-push" in str(maps)
    assert leaked(hidden, str(maps)) == []
    read = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; true"
    for container in ("postgres", "backup"):
        shown = pods.execute(NAMESPACE, "postgres-0", "bash", "-c", read, container=container).output
        assert "POSTGRES" in shown or "schedule" in shown
        assert leaked(hidden, shown) == [], container
    mode = pods.execute(
        NAMESPACE, "postgres-0", "stat", "-Lc", "%a", "/etc/pgbackrest/pgbackrest.conf", container="backup"
    )
    assert mode.output.strip() == "440"


def test_a_backup_can_be_made_now(backed: Backed, pods: Pods) -> None:
    before = labels(pods)
    run = backed.take("backup")
    assert run.code == 0, run.output
    [made] = [label for label in labels(pods) if label not in before]
    assert re.search(rf"backup {made} \(incr\): .* stored, \d+ s", " ".join(run.output.split())), run.output


def state_of(pods: Pods) -> dict[str, Any]:
    """Return all that a refused restore must leave as it was."""
    return {
        "backups": labels(pods),
        "timeline": ask(pods, "SELECT timeline_id FROM pg_control_checkpoint()"),
        "rows": words(pods),
        "pods": {
            name: pods.core.read_namespaced_pod(name, NAMESPACE).metadata.uid for name in ("postgres-0", "postgres-1")
        },
        "volume": pods.execute(NAMESPACE, "postgres-0", "ls", "/var/lib/postgresql", container="postgres").output,
    }


def future() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"postgres_restore_time": "yesterday"}, "found 'yesterday', wanted a time such as 2026-11-28 16:05:00 (UTC)"),
        (
            {"postgres_restore_time": "2020-01-01"},
            "found 2020-01-01 00:00:00 UTC, wanted one after the end of the oldest, ",
        ),
        ({"postgres_restore_time": future()}, "which is still to come"),
        ({"postgres_restore_backup": "20200101-000000F"}, "found '20200101-000000F', wanted one of "),
    ],
    ids=["no time", "before the first backup", "in the future", "missing backup"],
)
def test_a_restore_that_cannot_be_changes_nothing(
    backed: Backed, pods: Pods, variables: dict[str, Any], said: str
) -> None:
    before = state_of(pods)
    run = backed.take("restore", **variables)
    assert run.code != 0
    assert said in run.failure, run.output
    assert state_of(pods) == before


def test_another_cipher_password_opens_nothing_and_changes_nothing(backed: Backed, pods: Pods) -> None:
    before = state_of(pods)
    run = backed.apply(postgres_backup_cipher_password=random.token_hex(20))
    assert run.code != 0
    assert "cannot be decrypted" in run.failure, run.output
    refused = backed.take("restore")
    assert refused.code != 0
    assert "cannot be decrypted" in refused.failure, refused.output
    run = backed.apply()
    assert run.code == 0, run.output
    assert state_of(pods) == before


def test_a_dropped_table_is_back_as_it_was_a_second_before(backed: Backed, pods: Pods) -> None:
    ask(pods, "INSERT INTO precious VALUES ('before')")
    wanted = words(pods)
    time.sleep(1)
    target = moment(pods)
    time.sleep(1)
    ask(pods, "INSERT INTO precious VALUES ('after')")
    ask(pods, "DROP TABLE precious")
    began = time.monotonic()
    run = backed.take("restore", postgres_restore_time=target)
    assert run.code == 0, run.output
    print(f"restored to {target} in {time.monotonic() - began:.0f} s")
    assert words(pods) == wanted
    assert in_sync(pods)
    for member in ("postgres-0", "postgres-1"):
        assert pods.eventually(partial(words, pods, member), wanted) == wanted, member
    listed = pods.execute(NAMESPACE, "postgres-0", "ls", "/var/lib/postgresql", container="postgres").output
    assert listed.split() == ["data"]
    # The first run takes back what the restore has set in the objects' fields; after that there is nothing to do.
    for run in (backed.apply(), backed.apply()):
        assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_a_restore_of_everything_follows_the_newest_timeline(backed: Backed, pods: Pods) -> None:
    """Also of what was written last, and after an earlier restore."""
    ask(pods, "INSERT INTO precious VALUES ('last')")
    wanted = words(pods)
    run = backed.take("restore")
    assert run.code == 0, run.output
    assert words(pods) == wanted
    assert in_sync(pods)
    ask(pods, "INSERT INTO precious VALUES ('later')")
    run = backed.take("backup", postgres_backup_kind="full")
    assert run.code == 0, run.output


def test_a_time_after_the_last_change_is_refused(backed: Backed, pods: Pods) -> None:
    time.sleep(1)
    before, target = state_of(pods), moment(pods)
    run = backed.take("restore", postgres_restore_time=target)
    assert run.code != 0
    assert "after everything in the archive" in run.failure, run.output
    assert state_of(pods) == before


def test_another_member_leads_when_asked_to(backed: Backed, pods: Pods) -> None:
    old = leader(pods, NAMESPACE)
    [other] = {"postgres-0", "postgres-1"} - {old}
    refused = backed.take("switchover", postgres_switchover_candidate=old)
    assert refused.code != 0
    assert f"{old}: found {other} ready to take over from {old}, wanted that one among them" in refused.failure
    run = backed.take("switchover")
    assert run.code == 0, run.output
    assert f"{other} leads, and {old} follows it" in run.output
    assert leader(pods, NAMESPACE) == other
    assert in_sync(pods)
    # It archives and is backed up from now on.
    assert ask(pods, "INSERT INTO precious VALUES ('switched')") == []
    run = backed.take("backup")
    assert run.code == 0, run.output


def test_a_new_cluster_begins_with_what_the_repository_holds(backed: Backed, pods: Pods) -> None:
    """Comes last: the cluster is lost with its volumes, and only the repository is left."""
    ask(pods, "INSERT INTO precious VALUES ('archived last')")
    run = backed.take("backup")
    assert run.code == 0, run.output
    wanted, system = words(pods), ask(pods, "SELECT system_identifier FROM pg_control_system()")
    run = backed.take("uninstall", postgres_uninstall_data=True)
    assert run.code == 0, run.output
    refused = backed.apply(postgres_restore_first=True, postgres_backup_cipher_password=random.token_hex(20))
    assert refused.code != 0
    assert "cannot be decrypted" in refused.failure, refused.output
    began = time.monotonic()
    run = backed.apply(postgres_restore_first=True)
    assert run.code == 0, run.output
    print(f"a new cluster had all data after {time.monotonic() - began:.0f} s")
    assert words(pods) == wanted
    assert ask(pods, "SELECT system_identifier FROM pg_control_system()") == system
    assert in_sync(pods)
    # Who lives is left alone, also when told so once more; and backups go on.
    ask(pods, "INSERT INTO precious VALUES ('afterwards')")
    run = backed.apply(postgres_restore_first=True)
    assert run.code == 0, run.output
    assert run.changed == 0, run.output
    assert "afterwards" in words(pods)
    run = backed.take("backup")
    assert run.code == 0, run.output
