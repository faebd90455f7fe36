"""playbooks/rebuild.yml is for hosts that hold nothing: what refuses it, in one line, before anything is changed. The
rebuild itself is a drill (docs/drills.md)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_access import Cluster, state_directory
from controller import Run, playbook
from secret_store import Store

ROOT = Path(__file__).resolve().parents[2]


def rebuild(*arguments: str, **environment: Any) -> tuple[str, Run]:
    """Return the one line of the refusal, and the run."""
    run = playbook("playbooks/rebuild.yml", *arguments, **environment)
    assert run.code != 0, run.output[-3000:]
    assert "Traceback" not in run.output
    [line] = [line for line in run.output.splitlines() if line.startswith("[ERROR]")]
    return line, run


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a directory of states with a copy of the lab's: what a test does to it, nobody else sees."""
    shutil.copytree(state_directory("local"), tmp_path / "local")
    return tmp_path


def change_secret(state: Path, name: str, value: str) -> None:
    kept = Store(state / "secrets.yml", state / "vault.key")
    content = kept.read()
    assert content
    assert content[name] != value
    kept.write({**content, name: value})


def pods(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in cluster.items("/api/v1/namespaces/infrastructure/pods")}


def test_a_living_cluster_is_refused(cluster: Cluster) -> None:
    before = pods(cluster)
    line, run = rebuild()
    assert re.search(r"found a cluster with .*database api_db with \d+ tables.*volume data-minio-0", line), line
    assert "wanted new hosts without data; nothing was changed" in line
    assert run.changed == 0
    assert pods(cluster) == before


def test_without_a_second_site_there_is_nothing_to_rebuild_from(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "local", inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    del hosts["second_site"]
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    line, run = rebuild("-i", str(inventory))
    assert "second_site: found no host, wanted the host outside of the cluster" in line
    assert run.changed == 0


def test_without_the_secrets_none_are_invented(copy: Path) -> None:
    (copy / "local" / "secrets.yml").unlink()
    line, run = rebuild(SLIPWAY_STATE=str(copy))
    assert "secrets.yml: found no such file, wanted that of the platform that is to come back" in line
    assert run.changed == 0
    assert not (copy / "local" / "secrets.yml").exists()


def test_another_cipher_password_is_told_before_any_host_is_changed(copy: Path) -> None:
    change_secret(copy / "local", "postgres_backup_password", "another")
    line, run = rebuild(SLIPWAY_STATE=str(copy))
    assert "the repository cannot be decrypted" in line
    assert run.changed == 0


def test_a_repository_of_another_environment_is_not_taken(copy: Path, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "local", inventory)
    variables = inventory / "group_vars" / "all.yml"
    text = variables.read_text(encoding="utf-8")
    variables.write_text(text.replace("slipway_environment: local", "slipway_environment: elsewhere"), encoding="utf-8")
    (copy / "local").rename(copy / "elsewhere")
    line, run = rebuild("-i", str(inventory), SLIPWAY_STATE=str(copy))
    assert "found no backups of elsewhere (NoSuchKey), wanted them at backups/elsewhere/postgres" in line
    assert run.changed == 0
