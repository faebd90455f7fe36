"""Runs the real playbooks on the real inventories, with modules that write down what they were to apply.

So every template is rendered with the very variables that a user's run gives it; nothing has to be listed here.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PLAYBOOKS = ("tests/rendering/secrets.yml", "playbooks/platform.yml", "playbooks/services.yml")

ARTIFACTS = (
    "alertmanager",
    "cert-manager",
    "jaeger",
    "k3s",
    "loki",
    "minio",
    "otel-collector",
    "postgres",
    "prometheus",
    "redis",
    "traefik",
)
VERSIONS = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
KUBERNETES = ".".join(str(VERSIONS["kubernetes_version"]).split(".")[:2])
# In the place of those that come with cert-manager's image.
CRDS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusterissuers.cert-manager.io
spec:
  group: cert-manager.io
  names: {kind: ClusterIssuer, plural: clusterissuers}
  scope: Cluster
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""

# What an inventory may set, at both ends of the range.
PROFILES: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("local", {}),
    "ha": (
        "production",
        {
            "platform_profile": "ha",
            "postgres_members": 3,
            "minio_members": 4,
            "postgres_storage_class": "fast",
            "ingress_controller": "ingress-nginx",
            "ingress_nginx_image": f"registry.mycompany.com/ingress-nginx/controller@sha256:{64 * '0'}",
            "ingress_rate_limit": 20,
        },
    ),
}


@dataclass
class Rendering:
    """What one profile applies."""

    profile: str
    documents: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        return [document for document in self.documents if document["kind"] in kinds]

    def find(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        for document in self.of_kind(kind):
            metadata = document["metadata"]
            if (metadata.get("namespace"), metadata["name"]) == (namespace, name):
                return document
        return None


def render_playbooks(profile: str, directory: Path) -> Rendering:
    inventory, variables = PROFILES[profile]
    environment = directory / inventory
    environment.mkdir(mode=0o700)
    record = directory / "record.jsonl"
    (directory / "crds.yaml").write_text(CRDS, encoding="utf-8")
    index = {
        name: {"key": f"{number:064x}", "path": str(directory), "sha256": {}, "files": {}}
        for number, name in enumerate(ARTIFACTS)
    }
    index["cert-manager"]["files"] = {"crds.yaml": str(directory / "crds.yaml")}
    (environment / "artifacts.yml").write_text(json.dumps(index), encoding="utf-8")
    settings = {
        **os.environ,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(HERE / "collections"),
        "RENDERING_RECORD": str(record),
        "SLIPWAY_STATE": str(directory),
    }
    first, *others = PLAYBOOKS
    command = ["ansible-playbook", "--inventory", f"inventories/{inventory}", "--extra-vars", json.dumps(variables)]
    _run([*command, first], settings)
    # From here on the environment looks as if it lived.
    (environment / "kubeconfig").write_text("{}", encoding="utf-8")
    # What goes to hosts is left out: there are none.
    _run([*command, "--check", "--skip-tags", "node_images", *others], settings)
    calls = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    applied = [call for call in calls if call["state"] == "present"]
    return Rendering(profile, [document for call in applied for document in call["documents"]], calls)


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.fixture(scope="session", params=list(PROFILES))
def rendering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    """Return what a profile applies."""
    return render_playbooks(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def render() -> Any:
    """Return a function that gives the documents of a role's templates, with the role's own defaults."""
    init_plugin_loader()

    def documents(role: str, *templates: str, **variables: Any) -> list[dict[str, Any]]:
        loader, directory = DataLoader(), ROOT / "roles" / role
        loader.set_basedir(str(directory))
        known: dict[str, Any] = {}
        for name in ("defaults/main.yml", "vars/main.yml"):
            if (directory / name).exists():
                known |= loader.load_from_file(str(directory / name), trusted_as_template=True) or {}
        known |= {**variables, "ansible_search_path": [str(directory)]}
        templar = Templar(loader=loader, variables=known)
        found: list[dict[str, Any]] = []
        for template in templates:
            call = trust_as_template(f"{{{{ lookup('ansible.builtin.template', '{template}') }}}}")
            found += filter(None, yaml.safe_load_all(str(templar.template(call) or "")))
        return found

    return documents


def pick(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of this kind and name."""
    [found] = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found
