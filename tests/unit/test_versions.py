"""group_vars/all/versions.yml is the one place for versions: what recipes pin in files of their own agrees with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from artifact_recipe import Recipe

ROOT = Path(__file__).parents[2]
VERSIONS = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text())
RECIPES = sorted(path.parent for path in ROOT.glob("*/recipes/*/recipe.yml")) + sorted(
    path.parent for path in ROOT.glob("images/*/recipe.yml")
)
# The Go module whose version a recipe's go.mod pins.
MODULES = {
    "cert-manager": "github.com/cert-manager/cert-manager",
    "cni": "github.com/containernetworking/plugins",
    "containerd": "github.com/containerd/containerd/v2",
    "coredns": "github.com/coredns/coredns",
    "crictl": "sigs.k8s.io/cri-tools",
    "etcd": "go.etcd.io/etcd/server/v3",
    "jaeger": "github.com/jaegertracing/jaeger",
    "kubernetes": "k8s.io/kubernetes",
    "local-path-provisioner": "github.com/rancher/local-path-provisioner",
    "loki": "github.com/grafana/loki/v3",
    "metrics-server": "sigs.k8s.io/metrics-server",
    "otel-collector": "go.opentelemetry.io/collector/otelcol",
    "pebble": "github.com/letsencrypt/pebble/v2",
    "traefik": "github.com/traefik/traefik/v3",
}


@pytest.mark.parametrize("directory", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_well_formed(directory: Path) -> None:
    recipe = Recipe.load(directory)
    assert recipe.description
    for key in recipe.version_keys:
        assert key in VERSIONS
    for need in recipe.needs:
        assert any((place / "recipe.yml").is_file() for place in ROOT.glob(f"*/{need.split(':')[0]}")) or any(
            (place / "recipe.yml").is_file() for place in ROOT.glob(f"molecule/recipes/{need.split(':')[0]}")
        )


@pytest.mark.parametrize("name", sorted(MODULES))
def test_go_mod_agrees_with_versions(name: str) -> None:
    (directory,) = (path for path in RECIPES if path.name == name)
    recipe = Recipe.load(directory)
    pinned = re.findall(rf"^(?:require)?\s+{re.escape(MODULES[name])} v(\S+)", (directory / "go.mod").read_text(), re.M)
    assert pinned == [str(VERSIONS[recipe.version_keys[0]])]
    assert (directory / "go.sum").is_file()


def test_kubernetes_libraries_are_of_its_version() -> None:
    text = (ROOT / "molecule/recipes/kubernetes/go.mod").read_text()
    minor = str(VERSIONS["kubernetes_version"]).removeprefix("1.")
    replaced = re.findall(r"^\s+(k8s\.io/\S+) => (k8s\.io/\S+) v0\.(\S+)$", text, re.M)
    assert len(replaced) > 20
    for name, by, version in replaced:
        assert (name, version) == (by, minor)


def test_the_parts_of_the_collector_are_of_its_version() -> None:
    directory = ROOT / "images/otel-collector"
    wanted = yaml.safe_load((directory / "builder.yaml").read_text())
    version = f"v{VERSIONS['otel_collector_version']}"
    assert f"v{wanted['dist']['version']}" == version
    pinned = (directory / "go.mod").read_text()
    for kind in ("receivers", "processors", "exporters", "extensions"):
        for part in wanted[kind]:
            module, _, found = part["gomod"].partition(" ")
            assert found == version
            assert f"\t{module} {version}\n" in pinned
            assert f'"{module}"' in (directory / "components.go").read_text()
