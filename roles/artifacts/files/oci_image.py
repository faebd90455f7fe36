"""Assemble OCI images without a daemon: layers and a configuration in, an archive for `ctr images import` out.

The same input gives the same bytes: entries are sorted, times are zero, owners are set. Layers taken over from a base
image keep their digest, so images of the same base share it on the node.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "1970-01-01T00:00:00Z"
CHUNK = 1 << 20
LAYER_LEVEL = 9
ARCHIVE_LEVEL = 1  # the layers inside are compressed already


@dataclasses.dataclass(frozen=True)
class Layer:
    """A directory or a tar, and the directory of the image that it becomes."""

    source: Path
    place: str = "/"

    @classmethod
    def parse(cls, text: str) -> Layer:
        source, _, place = text.partition("=")
        if not Path(source).exists():
            raise SystemExit(f"layer {text}: {source} does not exist")
        return cls(Path(source), place or "/")


class Blobs:
    """Content-addressed files in a scratch directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, digest: str) -> Path:
        return self.directory / digest.removeprefix("sha256:")

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.path(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def read(self, digest: str) -> Any:
        return json.loads(self.path(digest).read_bytes())

    def add_layer(self, layer: Layer, owner: tuple[int, int]) -> tuple[dict[str, Any], str]:
        """Store a layer; gives its descriptor and its diff ID, the digest of the tar before compression."""
        fresh = self.directory / "layer.new"
        plain, packed = hashlib.sha256(), hashlib.sha256()
        with fresh.open("wb") as file:
            sink: Any = _Digesting(file, packed)
            # A fixed number of threads: the frames, and so the digest, depend on whether there are any.
            with zstandard.ZstdCompressor(level=LAYER_LEVEL, threads=2).stream_writer(sink, closefd=False) as stream:
                _write_layer(layer, owner, _Digesting(stream, plain))
        digest = f"sha256:{packed.hexdigest()}"
        size = fresh.stat().st_size
        fresh.replace(self.path(digest))
        return {"mediaType": LAYER, "digest": digest, "size": size}, f"sha256:{plain.hexdigest()}"


class _Digesting:
    """Passes on what is written and keeps its digest."""

    def __init__(self, sink: Any, digest: Any) -> None:
        self.sink = sink
        self.digest = digest

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.sink.write(data)
        return len(data)


def _write_layer(layer: Layer, owner: tuple[int, int], sink: Any) -> None:
    if layer.source.is_file() and layer.place == "/":
        with _plain(layer.source) as file:  # as it is: it keeps owners, devices and extended attributes
            while data := file.read(CHUNK):
                sink.write(data)
        return
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        place = PurePosixPath(layer.place.lstrip("/"))
        for parent in [*reversed(place.parents), place]:
            if str(parent) != ".":
                entry = tarfile.TarInfo(str(parent))
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
        if layer.source.is_file():
            raise SystemExit(f"layer {layer.source}: a tar can only become the root directory")
        for path in _walk(layer.source):
            entry = archive.gettarinfo(path, str(place / path.relative_to(layer.source)))
            entry.uid, entry.gid = owner
            entry.uname = entry.gname = ""
            entry.mtime = 0
            if entry.isreg():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)
            archive.inodes.clear()  # type: ignore[attr-defined]  # hard links would depend on how the files got here


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _plain(path: Path) -> Any:
    """The bytes of a tar that may be zstd-compressed."""
    file = path.open("rb")
    if file.read(4) == b"\x28\xb5\x2f\xfd":
        file.seek(0)
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
    file.seek(0)
    return file


def read_archive(path: Path, blobs: Blobs) -> list[dict[str, Any]]:
    """Unpack an archive's blobs; gives the descriptors of its images."""
    index: dict[str, Any] = {}
    with _plain(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isreg() else None
            if content is None:
                continue
            if entry.name == "index.json":
                index = json.load(content)
            elif entry.name.startswith("blobs/sha256/"):
                with blobs.path(PurePosixPath(entry.name).name).open("wb") as out:
                    while data := content.read(CHUNK):
                        out.write(data)
    images: list[dict[str, Any]] = index.get("manifests", [])
    if not images:
        raise SystemExit(f"{path}: no image in it; must be an archive that this program wrote")
    return images


def write_archive(path: Path, images: Sequence[dict[str, Any]], blobs: Blobs) -> None:
    """Write an OCI layout that holds the images and what they refer to, each blob once."""
    wanted: set[str] = set()
    for image in images:
        manifest = blobs.read(image["digest"])
        wanted |= {image["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(images)}
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=ARCHIVE_LEVEL, threads=2).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        for digest in sorted(wanted):
            blob = blobs.path(digest)
            with blob.open("rb") as content:
                _add(archive, f"blobs/sha256/{blob.name}", content, blob.stat().st_size)


def _add(archive: tarfile.TarFile, name: str, content: bytes | IO[bytes], size: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    entry.size = len(content) if isinstance(content, bytes) else size
    archive.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else content)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def build(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        blobs = Blobs(Path(scratch))
        architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
        layers: list[dict[str, Any]] = []
        diff_ids: list[str] = []
        settings: dict[str, Any] = {}
        if options.base:
            manifest = blobs.read(read_archive(options.base, blobs)[0]["digest"])
            config = blobs.read(manifest["config"]["digest"])
            layers, diff_ids, settings = manifest["layers"], config["rootfs"]["diff_ids"], config.get("config", {})
        for layer in options.layers:
            descriptor, diff_id = blobs.add_layer(Layer.parse(layer), options.owner)
            layers.append(descriptor)
            diff_ids.append(diff_id)
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": EPOCH,
            "config": _settings(settings, options),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blobs.add(_json(config), CONFIG),
            "layers": layers,
        }
        image = blobs.add(_json(manifest), MANIFEST) | {
            "platform": {"architecture": architecture, "os": "linux"},
            "annotations": {
                "io.containerd.image.name": options.reference,
                "org.opencontainers.image.ref.name": options.reference,
            },
        }
        write_archive(options.output, [image], blobs)
        print(f"{options.reference}@{image['digest']}")


def _settings(base: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The base's settings with those of the command line on top."""
    environment = dict(item.split("=", 1) for item in [*base.get("Env", []), *options.env])
    settings = dict(base) | {"Env": [f"{name}={value}" for name, value in environment.items()]}
    given = {
        "User": options.user,
        "Entrypoint": options.entrypoint,
        "Cmd": options.cmd,
        "WorkingDir": options.workdir,
        "ExposedPorts": {f"{port}/tcp": {} for port in options.port},
        "Labels": dict(item.split("=", 1) for item in options.label),
    }
    if options.entrypoint and not options.cmd:
        settings.pop("Cmd", None)  # arguments of the base's program
    return settings | {name: value for name, value in given.items() if value}


def merge(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        blobs = Blobs(Path(scratch))
        images = [image for archive in options.archives for image in read_archive(archive, blobs)]
        write_archive(options.output, images, blobs)


def _words(text: str) -> list[str]:
    """A command: a JSON list, or one word."""
    if not text.startswith("["):
        return [text]
    words = json.loads(text)
    if not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError("must be a JSON list of strings")
    return list(words)


def _pair(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=value")
    return text


def _owner(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    return int(uid), int(gid or uid)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="oci_image.py", description="Assemble OCI images without a daemon.")
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("build", help="one image out of layers")
    one.add_argument("output", type=Path)
    one.add_argument("reference", help="for example slipway.local/traefik:1.2.3")
    one.add_argument("layers", nargs="*", help="directory or tar, or directory=/place/in/the/image")
    one.add_argument("--base", type=Path, help="archive of an image to put the layers on")
    one.add_argument("--user", default="")
    one.add_argument("--env", action="append", default=[], type=_pair)
    one.add_argument("--entrypoint", type=_words)
    one.add_argument("--cmd", type=_words)
    one.add_argument("--workdir", default="")
    one.add_argument("--port", action="append", default=[], type=int)
    one.add_argument("--label", action="append", default=[], type=_pair)
    one.add_argument("--owner", type=_owner, default=(0, 0), help="uid:gid of the files of directory layers")
    one.set_defaults(run=build)
    many = actions.add_parser("merge", help="one archive out of several")
    many.add_argument("output", type=Path)
    many.add_argument("archives", nargs="+", type=Path)
    many.set_defaults(run=merge)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
