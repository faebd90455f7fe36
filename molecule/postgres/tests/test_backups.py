"""Backups outside of the cluster, and all that is brought back from them: in an installation of the test's own, with a
folder of its own at the second site."""

from __future__ import annotations

import base64
import json
import re
import secrets as random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from controller import Inventory, Run, playbook
from exposition import metrics
from kubernetes.client import BatchV1Api
from leaks import leaked
from object_store import store
from postgres_installation import Installation, leader, members, sign_in, superuser

NAMESPACE = "molecule-postgres-backups"
IN_SYNC = [("Leader", "running"), ("Sync Standby", "streaming")]
ARCHIVED_SECONDS = 90  # archive_timeout, and what the way there takes
FIRST_BACKUP_SECONDS = 180
VERIFY = "postgres-verify-backup"
# Somebody gets into the restored copy before it is looked at.
INTRUDER = """
import sys

sys.path.insert(0, "/usr/local/lib/postgres")
import contents, restore, verify_backup

def changed(self, copied=verify_backup.Verification.copied):
    with contents.connected("one_db", host=str(restore.SOCKET), user="postgres") as connection:
        contents.run(connection, "UPDATE public.precious SET word = 'other' WHERE word = 'archived'")
    return copied(self)

verify_backup.Verification.copied = changed
sys.exit(verify_backup.main(sys.argv[1:]))
"""

pytestmark = pytest.mark.explain(NAMESPACE)


class Backed(Installation):
    """An installation of two members with backups."""

    def __init__(
        self, state: Path, ca: str, image: str, address: str, keys: dict[str, dict[str, str]], client: Client
    ) -> None:
        super().__init__(NAMESPACE, state, image)
        self.folder = f"molecule/{random.token_hex(8)}"
        self._store = partial(client.call, store, endpoint=f"{address}:9000", ca=ca)
        self._keys = keys
        self.variables |= {
            "postgres_members": 2,
            "postgres_backup_endpoint": f"https://{address}:9000",
            "postgres_backup_path": f"/{self.folder}",
            "postgres_backup_access_key": keys["backups"]["access_key"],
            "postgres_backup_secret_key": keys["backups"]["secret_key"],
            "postgres_backup_reader_access_key": keys["backups_reader"]["access_key"],
            "postgres_backup_reader_secret_key": keys["backups_reader"]["secret_key"],
            "postgres_backup_cipher_password": random.token_hex(20),
            "postgres_backup_ca_certificate": ca,
            "postgres_backup_verifier_password": random.token_hex(20),
        }

    def take(self, entry: str, **variables: Any) -> Run:
        return self.apply(applied_tasks=entry, **variables)

    def repository(self, step: str, path: str = "", *more: str, key: str = "backups") -> str:
        """Take a step at the second site, in this installation's folder."""
        [answer] = self._store(key=self._keys[key], steps=[[step, "backups", f"{self.folder}{path}", *more]])
        return str(answer)


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
    with pods.namespace(NAMESPACE):
        found = Backed(state, ca, image, inventory.address(host), secrets["second_site_keys"], client)
        run = found.apply()
        assert run.code == 0, run.output
        hidden = {name: value for name, value in found.variables.items() if "key" in name or "password" in name}
        assert leaked(hidden, run.output) == []
        ask(pods, "CREATE TABLE precious (word text)")
        yield found
    assert found.repository("empty") == "done"


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


# --- a backup is what the cluster holds


def exported(pods: Pods, client: Client, name: str, member: str = "") -> float | None:
    """Return what the exporter beside a member, the leader if none is named, says of a backup."""
    pod = pods.core.read_namespaced_pod(member or leader(pods, NAMESPACE), NAMESPACE)
    samples = client.call(metrics, address=pod.status.pod_ip, port=9187)
    found = [value for sample, value in samples.items() if sample.partition("{")[0] == name]
    return found[0] if found else None


def schedules(pods: Pods) -> Any:
    return BatchV1Api(pods.api)


def verifying(pods: Pods) -> Any:
    """Return the pod that the schedule would start."""
    return schedules(pods).read_namespaced_cron_job(VERIFY, NAMESPACE).spec.job_template.spec.template.spec


def verified(pods: Pods, client: Client) -> float:
    """Return until when everything was shown to be restorable."""
    found = exported(pods, client, "backup_last_verified_timestamp")
    assert found is not None
    return found


def test_a_backup_is_compared_with_a_cluster_that_is_written_to(backed: Backed, pods: Pods, client: Client) -> None:
    assert verified(pods, client) == 0
    ask(pods, "CREATE TABLE busy (number int)")
    busy = (
        "DO $$ DECLARE until timestamptz = clock_timestamp() + '25 s'; BEGIN WHILE clock_timestamp() < until LOOP"
        " INSERT INTO busy VALUES (1); COMMIT; END LOOP; END $$"
    )
    writer = threading.Thread(target=ask, args=(Pods(backed.kubeconfig), busy))
    writer.start()
    began = time.time()
    run = backed.take("verify_backup")
    writer.join()
    assert run.code == 0, run.output
    said = rf"backup {labels(pods)[-1]}, replayed until .* UTC: 1 databases, 2 tables and (\d+) rows as in the running"
    found = re.search(said, " ".join(run.output.split()))
    assert found, run.output
    assert int(found[1]) > len(words(pods)) + 100
    print(f"verified {found[1]} rows in {time.time() - began:.0f} s")
    assert began < verified(pods, client) < time.time()
    # It looks once a minute: the one that was just made may not be known yet.
    made = [backup["timestamp"]["stop"] for backup in info(pods)["backup"]]
    assert exported(pods, client, "backup_last_completed_timestamp") in made
    [other] = {"postgres-0", "postgres-1"} - {leader(pods, NAMESPACE)}
    assert exported(pods, client, "backup_last_verified_timestamp", other) is None
    ask(pods, "DROP TABLE busy")


def test_who_verifies_reads_all_rows_and_writes_none(backed: Backed, pods: Pods, client: Client) -> None:
    login = backed.login | {"user": "_verifier", "password": backed.variables["postgres_backup_verifier_password"]}
    signed_in = partial(client.call, sign_in, ca=backed.ca, attempts=[login])
    ask(pods, "ALTER TABLE precious ENABLE ROW LEVEL SECURITY")
    assert signed_in(statement="SELECT count(*) FROM precious") == [str(len(words(pods)))]
    ask(pods, "ALTER TABLE precious DISABLE ROW LEVEL SECURITY")
    for statement in ("INSERT INTO precious VALUES ('x')", "DELETE FROM precious", "TRUNCATE precious"):
        assert signed_in(statement=statement) == ["refused: InsufficientPrivilegeError"], statement


def test_who_verifies_cannot_write_to_the_second_site(backed: Backed) -> None:
    assert "/backup.info" in backed.repository("list all", "/backup", key="backups_reader")
    refused = {
        backed.repository("put", "/other", "x", key="backups_reader"),
        backed.repository("remove", "/backup/postgres/backup.info", key="backups_reader"),
    }
    assert refused == {"AccessDenied"}


def test_a_row_that_is_another_one_is_found(backed: Backed, pods: Pods, client: Client) -> None:
    """In a Job as the schedule makes it, but for the one who changes the row."""
    before, batch = verified(pods, client), schedules(pods)
    job = batch.read_namespaced_cron_job(VERIFY, NAMESPACE).spec.job_template
    [container] = job.spec.template.spec.containers
    container.args = ["-c", INTRUDER, *container.args]
    container.command = ["python3"]
    batch.create_namespaced_job(NAMESPACE, {"metadata": {"name": VERIFY}, "spec": job.spec})

    def ended() -> list[str]:
        found = pods.core.list_namespaced_pod(NAMESPACE, label_selector=f"job-name={VERIFY}").items
        return [pod.metadata.name for pod in found if pod.status.phase in ("Succeeded", "Failed")]

    assert pods.eventually(lambda: len(ended()), 1) == 1
    [name] = ended()
    [status] = pods.core.read_namespaced_pod(name, NAMESPACE).status.container_statuses
    last = pods.core.read_namespaced_pod_log(name, NAMESPACE).splitlines()[-1]
    rows = len(words(pods))
    said = f"one_db: public.precious: found other content in its {rows} rows, wanted that of the running cluster"
    assert last.startswith(said), last
    assert (status.state.terminated.exit_code, status.state.terminated.message) == (1, last)
    assert verified(pods, client) == before
    batch.delete_namespaced_job(VERIFY, NAMESPACE, propagation_policy="Background")


def test_damage_at_the_second_site_is_found(backed: Backed, pods: Pods, client: Client) -> None:
    before, found = verified(pods, client), info(pods)
    segment, archive = found["backup"][-1]["archive"]["stop"], found["archive"][-1]["id"]
    path = f"/archive/postgres/{archive}/{segment[:16]}/{segment}"
    assert backed.repository("damage", path) == "done"
    try:
        run = backed.take("verify_backup")
        assert run.code != 0
        assert f"the archive cannot be read: unable to get {segment}" in run.failure, run.output
        assert verified(pods, client) == before
    finally:
        assert backed.repository("damage", path) == "done"


# --- what cannot be, and changes nothing


def state_of(backed: Backed, pods: Pods) -> dict[str, Any]:
    """Return all that a refusal must leave as it was."""
    return {
        "backups": backed.repository("list all", "/backup"),
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
    before = state_of(backed, pods)
    run = backed.take("restore", **variables)
    assert run.code != 0
    assert said in run.failure, run.output
    assert state_of(backed, pods) == before


def test_another_cipher_password_opens_nothing_and_changes_nothing(backed: Backed, pods: Pods) -> None:
    before = state_of(backed, pods)
    run = backed.apply(postgres_backup_cipher_password=random.token_hex(20))
    assert run.code != 0
    assert "cannot be decrypted" in run.failure, run.output
    refused = backed.take("restore")
    assert refused.code != 0
    assert "cannot be decrypted" in refused.failure, refused.output
    run = backed.apply()
    assert run.code == 0, run.output
    assert state_of(backed, pods) == before


def refusals(pods: Pods, spec: Any) -> list[str]:
    """Run what restores and what verifies in a pod as the schedule makes it, and return why each of them ended."""
    [container] = spec.containers
    scripts = "/usr/local/lib/postgres"
    both = f'python3 {scripts}/restore.py prepare --result /tmp/result; exec python3 {scripts}/verify_backup.py "$@"'
    container.args = ["-c", both, "sh", *container.args]
    container.command = ["sh"]
    # A name of its own for each: the volume is named after the pod, and goes a while after it.
    name = f"{VERIFY}-{random.token_hex(3)}"
    pods.core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": name}, "spec": spec})

    def pod() -> Any:
        return pods.core.read_namespaced_pod(name, NAMESPACE)

    assert pods.eventually(lambda: pod().status.phase, "Failed") == "Failed"
    [first, *_, last] = pods.core.read_namespaced_pod_log(name, NAMESPACE).splitlines()
    [status] = pod().status.container_statuses
    assert status.state.terminated.message == last
    pods.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
    return [first, last]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("repo1-s3-key-secret", "the object store refuses: 403 (Forbidden), SignatureDoesNotMatch"),
        ("repo1-s3-bucket", "the object store refuses: 403 (Forbidden), AccessDenied"),
    ],
    ids=["another key", "another bucket"],
)
def test_another_key_or_bucket_opens_nothing_and_changes_nothing(
    backed: Backed, pods: Pods, setting: str, said: str
) -> None:
    before, file = state_of(backed, pods), "pgbackrest.conf"
    kept = pods.core.read_namespaced_secret(VERIFY, NAMESPACE).data[file]
    wrong = re.sub(rf"(?m)^{setting}=.*$", f"{setting}=molecule-wrong", base64.b64decode(kept).decode())
    try:
        patch = {"data": {file: base64.b64encode(wrong.encode()).decode()}}
        pods.core.patch_namespaced_secret(VERIFY, NAMESPACE, patch)
        assert refusals(pods, verifying(pods)) == [said, said]
    finally:
        pods.core.patch_namespaced_secret(VERIFY, NAMESPACE, {"data": {file: kept}})
    assert state_of(backed, pods) == before


def test_a_volume_without_room_is_found_before_anything_is_copied(backed: Backed, pods: Pods) -> None:
    """On one of 64 MiB, which the lab's own storage cannot make."""
    before, spec = state_of(backed, pods), verifying(pods)
    [scratch] = [volume for volume in spec.volumes if volume.name == "scratch"]
    scratch.ephemeral, scratch.empty_dir = None, {"medium": "Memory", "sizeLimit": "64Mi"}
    said = r"volume: found 6\d MiB free, wanted \d+ MiB for backup \S+ beside what is there; make room or grow"
    for line in refusals(pods, spec):
        assert re.match(said, line), line
    assert state_of(backed, pods) == before


def test_a_kind_of_backup_that_there_is_not_is_one_line(backed: Backed, pods: Pods) -> None:
    before = state_of(backed, pods)
    run = playbook("--inventory", "inventories/local", "playbooks/backup.yml", variables={"backup_kind": "weekly"})
    assert run.code != 0
    assert "backup_kind: found weekly, wanted full, diff or incr, for example" in run.failure, run.output
    assert state_of(backed, pods) == before


def test_a_member_that_there_is_not_cannot_lead(backed: Backed, pods: Pods) -> None:
    before, own = state_of(backed, pods), leader(pods, NAMESPACE)
    [other] = {"postgres-0", "postgres-1"} - {own}
    run = backed.take("switchover", postgres_switchover_candidate="postgres-9")
    assert run.code != 0
    assert f"postgres-9: found {other} ready to take over from {own}, wanted that one among them" in run.failure
    assert (state_of(backed, pods), leader(pods, NAMESPACE)) == (before, own)


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
    before, target = state_of(backed, pods), moment(pods)
    run = backed.take("restore", postgres_restore_time=target)
    assert run.code != 0
    assert "after everything in the archive" in run.failure, run.output
    assert state_of(backed, pods) == before


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
