"""The services' images: what the archives say of themselves, and that every node has what runs."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from controller import apply_role
from leaks import leaked

# The services that the recipe `service` builds, on top of layers that they share.
PYTHON = ["auth", "api", "image", "demo"]


@pytest.fixture(scope="session")
def built(inventory: Any, definitions: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the facts that the role leaves."""
    file = tmp_path_factory.mktemp("facts") / "facts.json"
    run = apply_role(
        "image_build",
        *("--inventory", str(inventory.path)),
        variables={
            "image_build_services": list(definitions),
            "image_build_recipes": {name: one.get("image", "service") for name, one in definitions.items()},
            "applied_facts": ["image_build_images", "image_build_archives"],
            "applied_facts_file": str(file),
        },
    )
    assert run.code == 0, run.output
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def references(built: dict[str, Any]) -> dict[str, str]:
    """Return the image of each service."""
    return dict(built["image_build_images"])


@pytest.fixture(scope="session")
def archives(built: dict[str, Any]) -> dict[str, Path]:
    """Return the archive of each service's image."""
    return {archive["name"]: Path(archive["path"]) for archive in built["image_build_archives"]}


@pytest.fixture(scope="session")
def images(archives: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return of each archive its small files: index, manifests, configuration."""
    return {name: small_files(archive) for name, archive in archives.items()}


def small_files(archive: Path) -> dict[str, Any]:
    """Return every JSON document of an image archive by its path."""
    found = {}
    with (
        archive.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for member in tar:
            data = tar.extractfile(member) if member.isfile() and member.size < 100_000 else None
            text = data.read() if data else b""
            if text.startswith((b"{", b"[")):
                found[member.name] = json.loads(text)
    return found


def configuration(files: dict[str, Any]) -> dict[str, Any]:
    """Return an image's configuration."""
    [found] = [document for document in files.values() if isinstance(document, dict) and "rootfs" in document]
    return dict(found)


def test_a_tag_says_of_what_the_image_was_made(references: dict[str, str], archives: dict[str, Path]) -> None:
    assert references == {
        name: f"slipway.local/{name}:{archive.parent.name[:12]}" for name, archive in archives.items()
    }


def test_every_enabled_service_is_tested(definitions: dict[str, Any]) -> None:
    assert sorted(definitions) == sorted([*PYTHON, "web"])


@pytest.mark.parametrize("service", PYTHON)
def test_an_image_runs_its_service_as_nobody_in_particular(images: dict[str, Any], service: str) -> None:
    config = configuration(images[service])["config"]
    assert config["User"].split(":")[0] == "10001"
    assert config["Entrypoint"] == ["python3", "-m", f"slipway_{service}"]


def test_the_page_is_served_by_nginx(images: dict[str, Any]) -> None:
    config = configuration(images["web"])["config"]
    assert config["User"].split(":")[0] == "10001"
    assert config["Entrypoint"][0] == "/usr/sbin/nginx"


@pytest.mark.parametrize("service", [*PYTHON, "web"])
def test_no_secret_is_in_an_image(images: dict[str, Any], secrets: dict[str, Any], service: str) -> None:
    assert leaked(secrets, json.dumps(configuration(images[service]))) == []


def test_images_share_what_they_have_in_common(images: dict[str, Any]) -> None:
    layers = [configuration(images[name])["rootfs"]["diff_ids"] for name in PYTHON]
    assert all(len(stack) >= 3 for stack in layers)
    shared = {tuple(stack[:-1]) for stack in layers}
    assert len(shared) == 1, "a node keeps, and the network carries, each common layer once"
    assert len({stack[-1] for stack in layers}) == len(layers)


@pytest.mark.parametrize("host", ["server-1", "agent-1", "agent-2"])
def test_every_node_has_every_image_and_keeps_it(hosts: dict[str, Any], references: dict[str, str], host: str) -> None:
    found = json.loads(hosts[host].check_output("crictl images --output json"))["images"]
    pinned = {tag for image in found for tag in image["repoTags"] if image["pinned"]}
    assert set(references.values()) <= pinned


def test_what_runs_is_what_was_built(cluster: Any, definitions: dict[str, Any], references: dict[str, str]) -> None:
    for name, one in definitions.items():
        pods = cluster.items(
            f"/api/v1/namespaces/{one['namespace']}/pods",
            labelSelector=f"app.kubernetes.io/name={name},app.kubernetes.io/component=service",
        )
        assert {container["image"] for pod in pods for container in pod["spec"]["containers"]} == {references[name]}
