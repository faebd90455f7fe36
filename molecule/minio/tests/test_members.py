"""Four members with a drive each, whose objects are copied to a store elsewhere; in namespaces of the test's own."""

from __future__ import annotations

import hashlib
import json
import secrets as random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Pods
from cronjobs import run_now
from kubernetes.client import BatchV1Api
from minio_installation import Installation, user
from object_store import ask

FOUR, AWAY = "molecule-minio-four", "molecule-minio-away"
NAME = "app.kubernetes.io/name=minio"
SMALL = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
# Larger than what MinIO keeps beside an object's metadata.
SIZE = 600_000

pytestmark = [pytest.mark.explain(FOUR), pytest.mark.explain(AWAY)]


@pytest.fixture(scope="module")
def sites(pods: Pods, state: Path) -> Iterator[tuple[Installation, Installation]]:
    """Return the four, and the store that they copy to."""
    image = pods.core.read_namespaced_pod("minio-0", "infrastructure").spec.containers[0].image
    with pods.namespace(AWAY), pods.namespace(FOUR):
        away, four = Installation(AWAY, state, image), Installation(FOUR, state, image)
        four.renew(away.made)
        copier = user("copier", letters="replicate")
        away.users = {"copier": copier}
        away.variables |= {"minio_buckets": [{"name": "letters", "versioning": True}], "minio_resources": SMALL}
        four.users = {"writer": user("writer", letters="write")}
        copied = {"endpoint": f"https://{away.host}:9000", "bucket": "letters", "keys": "away"}
        bucket = {"name": "letters", "versioning": True, "noncurrent_days": 7, "replication": copied}
        keys = {name: copier[name] for name in ("access_key", "secret_key")}
        four.variables |= {
            "minio_members": 4,
            "minio_resources": SMALL,
            "minio_buckets": [bucket],
            "minio_replication_keys": [{"name": "away", **keys}],
        }
        for site in (away, four):
            run = site.apply()
            assert run.code == 0, run.output
        yield four, away


def test_a_second_run_changes_nothing(sites: tuple[Installation, Installation]) -> None:
    run = sites[0].apply()
    assert run.code == 0, run.output
    assert run.changed == 0, run.output


def test_damaged_objects_of_a_drive_are_read_right_and_mended(
    sites: tuple[Installation, Installation], client: Client, pods: Pods, hosts: dict[str, Any]
) -> None:
    """Of some objects the drive has what is read, of the others what is only read when something is missing: of eight
    it has both."""
    four, _ = sites
    names, text = [f"dear {number}" for number in range(8)], random.token_hex(SIZE // 2)
    puts = [["put", "letters", name, text] for name in names]
    assert four.steps(client, "writer", *puts) == ["done"] * len(names)
    drive = pods.core.read_namespaced_persistent_volume_claim("data-minio-0", FOUR).spec.volume_name
    node = hosts[pods.core.read_namespaced_pod("minio-0", FOUR).spec.node_name]
    folder = f"/var/lib/rancher/k3s/storage/{drive}_{FOUR}_data-minio-0/store/letters"

    def sums() -> list[str]:
        listed: str = node.check_output(f"find {folder} -path '*/dear*' -name part.1 | sort | xargs -d '\\n' sha256sum")
        return [line.split()[0] for line in listed.splitlines()]

    whole = sums()
    assert len(whole) == len(names)
    # In the middle: what stands there is neither a length nor a name.
    damage = "dd if=/dev/urandom of={} bs=1000 seek=50 count=3 conv=notrunc,fsync"
    assert node.run(f"find {folder} -path '*/dear*' -name part.1 -exec {damage} ';'").rc == 0
    assert not set(sums()) & set(whole)
    wanted = hashlib.sha256(text.encode()).digest()
    looked_at = healing(four, client)
    read = four.steps(client, "writer", *(["get", "letters", name] for name in names))
    assert [hashlib.sha256(one.encode()).digest() for one in read] == [wanted] * len(names)
    assert pods.eventually(lambda: healing(four, client) > looked_at, True)
    # A read has the object looked at, and mends nothing (docs/decisions/0021-healing.md). This does.
    [cronjob] = BatchV1Api(pods.api).list_namespaced_cron_job(FOUR).items
    healed = json.loads(run_now(pods, cronjob))
    assert (healed["damaged"], healed["restored"]) == (len(names), len(names))
    assert sums() == whole


def healing(site: Installation, client: Client) -> float:
    """What the members' metrics say of objects that were healed."""
    found = 0.0
    for member in range(4):
        host = site.members.replace("*", f"minio-{member}")
        status, body = client.call(ask, url=f"https://{host}:9000/minio/v2/metrics/cluster", ca=site.ca)
        assert status == 200, body
        lines = [line for line in body.splitlines() if line.startswith("minio_heal_objects_heal_total{")]
        found += sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found


def test_objects_are_read_while_a_member_is_away(
    sites: tuple[Installation, Installation], client: Client, pods: Pods
) -> None:
    four, _ = sites
    killed = pods.core.read_namespaced_pod("minio-3", FOUR).metadata.uid
    pods.core.delete_namespaced_pod("minio-3", FOUR, grace_period_seconds=0)
    steps = [["put", "letters", "while away", "yours"], ["get", "letters", "while away"]]
    assert four.steps(client, "writer", *steps) == ["done", "yours"]
    pods.wait_ready(FOUR, "minio-3", other_than=killed)


def test_the_first_site_lost_its_objects_are_read_at_the_second(
    sites: tuple[Installation, Installation], client: Client, pods: Pods
) -> None:
    four, away = sites
    puts = [["put letter", "letters", "typed", "dear"], ["put", "letters", "gone", "soon"]]
    puts += [["remove", "letters", "gone"]]
    assert four.steps(client, "writer", *puts, ["put", "letters", "last", "good-bye"]) == ["done"] * 4
    get, typed = ["get", "letters", "last"], ["get", "letters", "typed"]
    there = ["good-bye", "dear", "NoSuchKey"]
    seen = pods.eventually(lambda: away.steps(client, "copier", get, typed, ["get", "letters", "gone"]), there, 60)
    assert seen == there
    run = four.apply(applied_tasks="uninstall", minio_uninstall_data=True)
    assert run.code == 0, run.output
    assert pods.core.list_namespaced_persistent_volume_claim(FOUR, label_selector=NAME).items == []
    assert away.steps(client, "copier", get, ["get", "letters", "while away"]) == ["good-bye", "yours"]


def test_a_new_first_site_is_filled_from_the_second_one(
    sites: tuple[Installation, Installation], client: Client, pods: Pods
) -> None:
    """Follows the loss: what was deleted stays so, and nothing goes back as something new."""
    four, away = sites
    list_all, count, get = ["list", "letters"], ["versions", "letters"], ["get", "letters", "last"]
    stats = [["stat", "letters", name] for name in ("last", "typed")]
    before = away.steps(client, "copier", list_all, count, *stats)
    assert "gone" not in before[0]
    assert "text/x-letter grandmother" in before[3]
    new = {"minio_members": 1, "minio_fill_buckets": True}
    run = four.apply(**new)
    assert run.code == 0, run.output
    root = {"access_key": four.variables["minio_root_user"], "secret_key": four.variables["minio_root_password"]}
    [here] = four.take(client, root, count)
    assert here.endswith(" objects, 0 marks")
    assert f"bucket letters: {here.partition(',')[0]} " in " ".join(run.output.split()), run.output
    assert four.steps(client, "writer", list_all, *stats, get) == [before[0], *before[2:], "good-bye"]
    # Once more there is nothing to do; and once it is in use, what is newer here stays.
    assert four.steps(client, "writer", ["put", "letters", "last", "again"], ["remove", "letters", "typed"]) == [
        "done",
        "done",
    ]
    run = four.apply(**new)
    assert run.code == 0, run.output
    assert "letters: 0 objects" in " ".join(run.output.split()), run.output
    assert four.steps(client, "writer", get, stats[1]) == ["again", "NoSuchKey"]
    # Both changes arrive, one version and one mark more, and no copies of what came from there.
    objects, marks = (int(word) for word in before[1].replace(",", "").split() if word.isdigit())
    wanted = f"{objects + 1} objects, {marks + 1} marks"
    assert pods.eventually(lambda: away.steps(client, "copier", count), [wanted], 60) == [wanted]
    assert away.steps(client, "copier", get, stats[1]) == ["again", "NoSuchKey"]
