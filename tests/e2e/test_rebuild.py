"""playbooks/rebuild.yml is for hosts that hold nothing: what refuses it, in one line, before anything is changed. The
rebuild itself is a drill (docs/drills.md)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from cluster_access import Cluster, state_directory

ROOT = Path(__file__).resolve().parents[2]
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)


def rebuild(*arguments: str, **environment: str) -> tuple[str, dict[str, int]]:
    """Return the one line of the refusal and how much was changed on each host."""
    done = subprocess.run(
        ["ansible-playbook", "playbooks/rebuild.yml", *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0, done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
    return line, {host: int(changed) for host, changed in RECAP.findall(done.stdout)}


def unchanged(recap: dict[str, int]) -> bool:
    return bool(recap) and set(recap.values()) == {0}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a directory of states with a copy of the lab's: what a test does to it, nobody else sees."""
    shutil.copytree(state_directory("local"), tmp_path / "local")
    return tmp_path


def change_secret(state: Path, name: str, value: str) -> None:
    vault = VaultLib([("default", VaultSecret((state / "vault.key").read_bytes().strip()))])
    content = yaml.safe_load(vault.decrypt((state / "secrets.yml").read_bytes()))
    assert content[name] != value
    (state / "secrets.yml").write_bytes(vault.encrypt(yaml.safe_dump({**content, name: value})))


def pods(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in cluster.items("/api/v1/namespaces/infrastructure/pods")}


def test_a_living_cluster_is_refused(cluster: Cluster) -> None:
    before = pods(cluster)
    line, recap = rebuild()
    assert re.search(r"found a cluster with .*database api_db with \d+ tables.*volume data-minio-0", line), line
    assert "wanted new hosts without data; nothing was changed" in line
    assert unchanged(recap)
    assert pods(cluster) == before


def test_without_a_second_site_there_is_nothing_to_rebuild_from(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "local", inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text(encoding="utf-8"))
    del hosts["second_site"]
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    line, recap = rebuild("-i", str(inventory))
    assert "second_site: found no host, wanted the host outside of the cluster" in line
    assert unchanged(recap)


def test_without_the_secrets_none_are_invented(copy: Path) -> None:
    (copy / "local" / "secrets.yml").unlink()
    line, recap = rebuild(SLIPWAY_STATE=str(copy))
    assert "secrets.yml: found no such file, wanted that of the platform that is to come back" in line
    assert unchanged(recap)
    assert not (copy / "local" / "secrets.yml").exists()


def test_another_cipher_password_is_told_before_any_host_is_changed(copy: Path) -> None:
    change_secret(copy / "local", "postgres_backup_password", "another")
    line, recap = rebuild(SLIPWAY_STATE=str(copy))
    assert "the repository cannot be decrypted" in line
    assert unchanged(recap)


def test_a_repository_of_another_environment_is_not_taken(copy: Path, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "local", inventory)
    variables = inventory / "group_vars" / "all.yml"
    text = variables.read_text(encoding="utf-8")
    variables.write_text(text.replace("slipway_environment: local", "slipway_environment: elsewhere"), encoding="utf-8")
    (copy / "local").rename(copy / "elsewhere")
    line, recap = rebuild("-i", str(inventory), SLIPWAY_STATE=str(copy))
    assert "found no backups of elsewhere (NoSuchKey), wanted them at backups/elsewhere/postgres" in line
    assert unchanged(recap)
