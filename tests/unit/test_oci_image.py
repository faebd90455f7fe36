"""Images assembled without a daemon: deterministic, layered, complete."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import oci_image
import pytest
import zstandard


def tree(root: Path) -> Path:
    (root / "app/nested").mkdir(parents=True)
    (root / "app/program").write_text("#!/bin/sh\n")
    (root / "app/program").chmod(0o755)
    (root / "app/nested/data").write_text("data")
    (root / "app/link").symlink_to("program")
    return root


def build(output: Path, *arguments: str | Path) -> Path:
    oci_image.main(["build", str(output), *(str(argument) for argument in arguments)])
    return output


class Archive:
    """What is inside of an archive, checked against its own digests."""

    def __init__(self, path: Path) -> None:
        self.files: dict[str, bytes] = {}
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for entry in archive:
                content = archive.extractfile(entry)
                assert content is not None
                self.files[entry.name] = content.read()
        for name, data in self.files.items():
            if name.startswith("blobs/"):
                assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        self.images = json.loads(self.files["index.json"])["manifests"]

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        data = self.files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(data) == descriptor["size"]
        return data

    def manifest(self, number: int = 0) -> dict[str, Any]:
        return dict(json.loads(self.blob(self.images[number])))

    def config(self, number: int = 0) -> dict[str, Any]:
        return dict(json.loads(self.blob(self.manifest(number)["config"])))

    def layers(self, number: int = 0) -> list[bytes]:
        layers = []
        for descriptor in self.manifest(number)["layers"]:
            with zstandard.ZstdDecompressor().stream_reader(self.blob(descriptor)) as plain:
                layers.append(plain.read())
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        assert diff_ids == self.config(number)["rootfs"]["diff_ids"]
        return layers


def entries(layer: bytes, tmp_path: Path) -> dict[str, tarfile.TarInfo]:
    file = tmp_path / "layer.tar"
    file.write_bytes(layer)
    with tarfile.open(file) as archive:
        return {entry.name: entry for entry in archive}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    os.utime(two / "app/program", (1, 1))
    os.link(two / "app/nested/data", tmp_path / "elsewhere")
    options = ["--user", "10001", "--env", "A=1", "--port", "8000"]
    first = build(tmp_path / "1.tar.zst", "slipway.local/tool:1", one, *options)
    second = build(tmp_path / "2.tar.zst", "slipway.local/tool:1", two, *options)
    assert first.read_bytes() == second.read_bytes()


def test_a_directory_becomes_a_layer_owned_by_root(tmp_path: Path) -> None:
    archive = Archive(build(tmp_path / "image.tar.zst", "slipway.local/tool:1", tree(tmp_path / "root")))
    (layer,) = archive.layers()
    found = entries(layer, tmp_path)
    assert sorted(found) == ["app", "app/link", "app/nested", "app/nested/data", "app/program"]
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in found.values()} == {(0, 0, "", 0)}
    assert found["app/program"].mode == 0o755
    assert found["app/link"].linkname == "program"


def test_the_archive_names_its_image(tmp_path: Path) -> None:
    archive = Archive(build(tmp_path / "image.tar.zst", "slipway.local/tool:1", tree(tmp_path / "root")))
    assert archive.images[0]["annotations"]["io.containerd.image.name"] == "slipway.local/tool:1"
    assert archive.images[0]["platform"]["os"] == archive.config()["os"] == "linux"


def test_settings(tmp_path: Path) -> None:
    options = ["--user", "10001", "--env", "A=1", "--workdir", "/app", "--port", "80", "--label", "a=b"]
    command = ["--entrypoint", '["/app/program", "-v"]', "--cmd", "serve"]
    image = build(tmp_path / "image.tar.zst", "slipway.local/tool:1", tree(tmp_path / "root"), *options, *command)
    assert Archive(image).config()["config"] == {
        "User": "10001",
        "Env": ["A=1"],
        "WorkingDir": "/app",
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"},
        "Entrypoint": ["/app/program", "-v"],
        "Cmd": ["serve"],
    }


def test_images_on_one_base_share_its_layer(tmp_path: Path) -> None:
    base = build(
        tmp_path / "base.tar.zst", "base:1", tree(tmp_path / "root"), "--env", "A=1", "--env", "B=1", "--cmd", "x"
    )
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main.py").write_text("")
    options: list[str | Path] = ["--base", base, "--env", "B=2", "--entrypoint", "python3"]
    image = Archive(build(tmp_path / "image.tar.zst", "service:1", f"{tmp_path}/code=/app/site", *options))
    assert image.manifest()["layers"][0] == Archive(base).manifest()["layers"][0]
    assert image.config()["config"] == {"Env": ["A=1", "B=2"], "Entrypoint": ["python3"]}
    found = entries(image.layers()[1], tmp_path)
    assert sorted(found) == ["app", "app/site", "app/site/main.py"]
    assert found["app"].isdir()
    assert found["app"].mode == 0o755


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_is_taken_as_it_is(tmp_path: Path, packed: bool) -> None:
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        entry = tarfile.TarInfo("var/lib/data")
        entry.uid, entry.gid, entry.mtime, entry.type = 999, 998, 5, tarfile.DIRTYPE
        archive.addfile(entry)
    plain = (tmp_path / "root.tar").read_bytes()
    if packed:
        (tmp_path / "root.tar").write_bytes(zstandard.compress(plain))
    image = Archive(build(tmp_path / "image.tar.zst", "tool:1", tmp_path / "root.tar"))
    assert image.layers() == [plain]


def test_several_images_in_one_archive_share_blobs(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    one = build(tmp_path / "one.tar.zst", "one:1", root, "--user", "1")
    two = build(tmp_path / "two.tar.zst", "two:1", root, "--user", "2")
    oci_image.main(["merge", str(tmp_path / "all.tar.zst"), str(one), str(two)])
    merged = Archive(tmp_path / "all.tar.zst")
    assert [image["annotations"]["io.containerd.image.name"] for image in merged.images] == ["one:1", "two:1"]
    assert merged.config(1) == Archive(two).config()
    assert len(merged.files) == 2 + 2 + 2 + 1  # the layout, two manifests, two configurations, one layer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing does not exist"),
        (["root.tar=/app"], "a tar can only become the root directory"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open("root.tar", "w"):
        pass
    with pytest.raises(SystemExit, match=message):
        build(Path("image.tar.zst"), "tool:1", *arguments)
