"""A strict reader of the inventory's files: Ansible reports such errors late, in many lines, or not at all.

A broken hosts.yml is only a warning for Ansible (it goes on without hosts) and a broken vars file ends it before the
first task. The reader also remembers where each key stands, for values that cannot carry their origin themselves
(true, false and null).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .mistake import Mistake

VARS_DIRECTORIES = ("group_vars", "host_vars")
SUFFIXES = ("", ".yml", ".yaml", ".json")
EXAMPLE = "platform_domain: slipway.test"


@dataclass(frozen=True)
class Definition:
    """A key of a file: hosts, groups and variables alike."""

    name: str
    where: str
    value: Any


@dataclass
class Files:
    mistakes: list[Mistake] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)

    def where(self, name: str, default: str, value: Any = ...) -> str:
        """The place of a key; given a value, a key that has this value."""
        for definition in self.definitions:
            if definition.name == name and (value is ... or definition.value is value):
                return definition.where
        return default


def relative(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def vars_files(directory: Path) -> Iterator[Path]:
    """Every variable file that Ansible would read beside an inventory or a playbook."""
    for name in VARS_DIRECTORIES:
        yield from (path for path in sorted((directory / name).rglob("*")) if is_data(path))


def inventory_files(source: Path) -> Iterator[Path]:
    """The files of one inventory source: a file, or a directory of them, and the variables beside it."""
    if source.is_dir():
        yield from (path for path in sorted(source.iterdir()) if is_data(path))
        yield from vars_files(source)
    else:
        yield source
        yield from vars_files(source.parent)


def is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix in SUFFIXES


def read_inventory(source: Path) -> Files:
    files = Files()
    if not source.exists():
        files.mistakes.append(
            Mistake(relative(source), "inventory", "no such file or directory", "an inventory", "-i inventories/local")
        )
        return files
    for path in inventory_files(source):
        read(path, files)
    return files


def read_vars(directory: Path) -> Files:
    files = Files()
    for path in vars_files(directory):
        read(path, files)
    return files


def read(path: Path, files: Files) -> None:
    """Append what is wrong with one file, and its keys, to `files`."""
    where = relative(path)

    def report(line: int, found: str, wanted: str, example: str, key: str = "YAML") -> None:
        files.mistakes.append(Mistake(f"{where}:{line}", key, found, wanted, example))

    try:
        raw = path.read_bytes()
    except OSError as error:
        report(1, f"an unreadable file ({error.strerror})", "a file that you may read", f"chmod u+r {where}", "file")
        return
    if raw.startswith(b"$ANSIBLE_VAULT;"):
        return
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        report(1, "a byte order mark", "UTF-8 without one", f"sed -i '1s/^\\xef\\xbb\\xbf//' {where}", "encoding")
        return
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        report(
            line,
            f"the byte 0x{raw[error.start]:02x}, which is not UTF-8",
            "UTF-8",
            f"iconv -f latin1 -t utf-8 {where}",
            "encoding",
        )
        return
    if "\r" in text:
        line = text.split("\r", maxsplit=1)[0].count("\n") + 1
        report(line, "Windows line ends (CRLF)", "line feeds alone", f"sed -i 's/\\r$//' {where}", "encoding")
        return
    if executable_source(path, text):
        return
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is not None and not isinstance(root, yaml.MappingNode) and beside_variables(path):
            report(1, "no map", "a map of variables", EXAMPLE)
        elif root is not None:
            visit(root, "", loader, where, files)
    except yaml.MarkedYAMLError as error:
        tab = re.search(r"^ *\t[ \t]*\S", text, re.MULTILINE)
        if tab is not None:
            line = text[: tab.start()].count("\n") + 1
            report(line, "a tab in the indentation", "spaces", "two spaces for each level")
            return
        mark = error.problem_mark or error.context_mark
        # What stands in quotes comes from the file and may be part of a password.
        problem = re.sub(r"'[^']*'|\"[^\"]*\"", "...", error.problem or error.context or "a syntax error")
        report(mark.line + 1 if mark else 1, f"invalid YAML ({problem})", "valid YAML", EXAMPLE)
    except yaml.YAMLError:
        report(1, "a character that YAML forbids", "printable text", EXAMPLE)
    finally:
        loader.dispose()


def beside_variables(path: Path) -> bool:
    return any(parent.name in VARS_DIRECTORIES for parent in path.parents)


def executable_source(path: Path, text: str) -> bool:
    """Inventory scripts and INI inventories are Ansible's business; variable files are always YAML."""
    return not beside_variables(path) and not path.suffix and text.startswith(("#!", "["))


def visit(node: yaml.Node, path: str, loader: yaml.SafeLoader, where: str, files: Files) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            visit(item, f"{path}[{index}]", loader, where, files)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            wanted = Mistake(f"{where}:{line}", path or "YAML", "a map or a list as a key", "a plain key", EXAMPLE)
            files.mistakes.append(wanted)
            continue
        name = f"{path}.{key.value}" if path else key.value
        if key.value in seen and key.value != "<<":
            files.mistakes.append(
                Mistake(
                    f"{where}:{line}",
                    name,
                    f"the key twice (also in line {seen[key.value]})",
                    "each key once",
                    f"delete one of the two lines {seen[key.value]} and {line}",
                )
            )
        seen.setdefault(key.value, line)
        files.definitions.append(Definition(key.value, f"{where}:{line}", scalar(value, loader)))
        visit(value, name, loader, where, files)


def scalar(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    """True, False or None: the values that are looked up here; ... for all others."""
    if isinstance(node, yaml.ScalarNode) and node.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"):
        return loader.construct_object(node)
    return ...
