"""Pack programs into bin/ of a zstd-compressed tar, the same bytes for the same programs."""

import argparse
import io
import tarfile
from pathlib import Path

import zstandard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("programs", type=Path, nargs="+")
    parser.add_argument("--link", nargs="+", default=[], metavar="NAME", help="a program, then further names for it")
    options = parser.parse_args()

    entries: dict[str, Path | str] = {f"bin/{program.name}": program for program in options.programs}
    if options.link:
        entries |= {f"bin/{name}": options.link[0] for name in options.link[1:]}
    # Level 6 packs in a few seconds; higher ones save little and cost minutes on a small machine.
    compressor = zstandard.ZstdCompressor(level=6, threads=2)
    with (
        options.output.open("wb") as file,
        compressor.stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, source in sorted(entries.items()):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if isinstance(source, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, source
                archive.addfile(entry, io.BytesIO())
            else:
                entry.size = source.stat().st_size
                with source.open("rb") as content:
                    archive.addfile(entry, content)


if __name__ == "__main__":
    main()
