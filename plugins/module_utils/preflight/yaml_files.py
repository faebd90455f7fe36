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
CARRIAGE_RETURN = b"\r"
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
    try:
        raw = path.read_bytes()
    except OSError as error:
        found = f"an unreadable file ({error.strerror})"
        files.mistakes.append(Mistake(where, "file", found, "a file that you may read", f"chmod u+r {where}"))
        return
    if raw.startswith(b"$ANSIBLE_VAULT;"):
        return
    encoding = encoding_mistake(raw, where)
    if encoding is not None:
        files.mistakes.append(encoding)
        return
    text = raw.decode("utf-8")
    if not executable_source(path, text):
        read_yaml(text, where, files, variables=beside_variables(path))


def encoding_mistake(raw: bytes, where: str) -> Mistake | None:
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        repair = f"sed -i '1s/^\\xef\\xbb\\xbf//' {where}"
        return Mistake(f"{where}:1", "encoding", "a byte order mark", "UTF-8 without one", repair)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"the byte 0x{raw[error.start]:02x}, which is not UTF-8"
        place = f"{where}:{line_of(raw, error.start)}"
        return Mistake(place, "encoding", found, "UTF-8", f"iconv -f latin1 -t utf-8 {where}")
    if CARRIAGE_RETURN in raw:
        place = f"{where}:{line_of(raw, raw.find(CARRIAGE_RETURN))}"
        repair = f"sed -i 's/\\r$//' {where}"
        return Mistake(place, "encoding", "Windows line ends (CRLF)", "line feeds alone", repair)
    return None


def line_of(text: bytes, position: int) -> int:
    return text[:position].count(b"\n") + 1


def read_yaml(text: str, where: str, files: Files, *, variables: bool) -> None:
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        files.mistakes.append(syntax_mistake(text, where, error))
        return
    if isinstance(root, yaml.MappingNode):
        visit(root, "", loader, where, files)
    elif root is not None and variables:
        files.mistakes.append(Mistake(f"{where}:1", "YAML", "no map", "a map of variables", EXAMPLE))


def syntax_mistake(text: str, where: str, error: yaml.YAMLError) -> Mistake:
    tab = re.search(r"^ *\t[ \t]*\S", text, re.MULTILINE)
    if tab is not None:
        place = f"{where}:{line_of(text.encode(), len(text[: tab.start()].encode()))}"
        return Mistake(place, "YAML", "a tab in the indentation", "spaces", "two spaces for each level")
    if not isinstance(error, yaml.MarkedYAMLError):
        return Mistake(where, "YAML", "a character that YAML forbids", "printable text", EXAMPLE)
    mark = error.problem_mark or error.context_mark
    # What stands in quotes comes from the file and may be part of a password.
    problem = re.sub(r"'[^']*'|\"[^\"]*\"", "...", error.problem or error.context or "a syntax error")
    place = f"{where}:{mark.line + 1 if mark else 1}"
    return Mistake(place, "YAML", f"invalid YAML ({problem})", "valid YAML", EXAMPLE)


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
