"""The documentation names only what exists: files, headings, targets of make, roles and versions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "images", "inventories", "molecule", "playbooks", "plugins", "roles", "scripts", "services", "tests")
GENERATED = {".venv", ".cache", "node_modules"}

FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<language>\S*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.M)
MAKE = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*make((?: [a-z][a-z-]*)+)", re.M)
ROLE = re.compile(r"\broles/([a-z][a-z0-9_]*)")
PATH = re.compile(rf"(?:{'|'.join((*FOLDERS, 'group_vars'))})/[\w./-]+")
VERSION = re.compile(r"(?<![\w.+-])v?(\d+\.\d+\.\d+)(?![\w/]|\.\d)")

# A block ends with `end`; these begin one.
BLOCKS = {
    "sequenceDiagram": ("alt", "box", "break", "critical", "loop", "opt", "par", "rect"),
    "flowchart": ("subgraph",),
    "graph": ("subgraph",),
    "stateDiagram-v2": (),
    "erDiagram": (),
    "gantt": (),
}
# Paths of the machine that somebody wrote on say nothing to anybody else.
FORBIDDEN = ("/work/", "/root/")


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path for path in found if not GENERATED.intersection(path.parts))


@cache
def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Return what is left without fenced blocks."""
    return FENCE.sub("", text)


def code(text: str) -> Iterator[str]:
    """Yield every code span and every fenced block."""
    yield from SPAN.findall(prose(text))
    yield from (match["body"] for match in FENCE.finditer(text) if match["language"] != "mermaid")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(read(path))):
        slug = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        number = 1
        while (unique := slug if number == 1 else f"{slug}-{number - 1}") in found:
            number += 1
        found.add(unique)
    return found


def broken_links(path: Path) -> Iterator[str]:
    for target in LINK.findall(SPAN.sub("", prose(read(path)))):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        if not page.exists():
            yield target
        elif anchor and anchor not in anchors(page):
            yield f"{target} (no such heading)"


def mermaid_mistakes(text: str) -> Iterator[str]:
    if len(re.findall(r"^`{3,}", text, re.M)) % 2:
        yield "a fence is not closed"
    for match in FENCE.finditer(text):
        if match["language"] != "mermaid":
            continue
        lines = [line.strip() for line in match["body"].splitlines() if line.strip() and "%%" not in line[:4]]
        kind = lines[0].split()[0] if lines else "nothing"
        if kind not in BLOCKS:
            yield f"{kind}: not one of {', '.join(BLOCKS)}"
            continue
        words = [line.split()[0] for line in lines[1:]]
        opened, closed = sum(word in BLOCKS[kind] for word in words), words.count("end")
        if opened != closed:
            yield f"{kind}: {opened} blocks opened, {closed} closed"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def versions() -> set[str]:
    content = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
    return {number for value in content.values() for number in re.findall(r"\d+\.\d+\.\d+", str(value))}


pages = pytest.mark.parametrize("page", documents(), ids=lambda path: str(path.relative_to(ROOT)))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    assert not list(broken_links(page))


@pages
def test_targets_of_make_exist(page: Path) -> None:
    named = {target for piece in code(read(page)) for words in MAKE.findall(piece) for target in words.split()}
    assert named <= targets()


@pages
def test_roles_exist(page: Path) -> None:
    missing = {role for role in ROLE.findall(read(page)) if not (ROOT / "roles" / role).is_dir()}
    assert not missing


@pages
def test_paths_of_the_project_exist(page: Path) -> None:
    named = {span for span in SPAN.findall(prose(read(page))) if PATH.fullmatch(span)}
    assert not {name for name in named if not (ROOT / name).exists() and not (page.parent / name).exists()}


@pages
def test_diagrams_are_whole(page: Path) -> None:
    assert not list(mermaid_mistakes(read(page)))


@pages
def test_nothing_of_one_machine(page: Path) -> None:
    assert not [word for word in FORBIDDEN if word in read(page)]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.stem)
def test_versions_are_those_of_versions_yml(page: Path) -> None:
    assert set(VERSION.findall(read(page))) <= versions()


def test_every_role_is_described() -> None:
    described = set(re.findall(r"^\| `([a-z0-9_]+)` \|", read(ROOT / "docs/architecture.md"), re.M))
    assert {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()} <= described


def test_readme_is_short() -> None:
    assert len(read(ROOT / "README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_decisions_have_one_form(page: Path) -> None:
    text = read(page)
    assert HEADING.findall(text)[1:] == ["Context", "Decision", "Consequence"]
    assert text.startswith(f"# {page.name[:4]} ")
    assert len(text.splitlines()) <= 25
    assert f"({page.name})" in read(page.parent / "README.md")


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("```mermaid\nflowchart LR\n  a --> b\n```\n", 0),
        ("```mermaid\nflowchart LR\n  subgraph one\n  a --> b\n```\n", 1),
        ("```mermaid\nsequenceDiagram\n  alt yes\n  a->>b: c\n  end\n```\n", 0),
        ("```mermaid\npicture\n  a --> b\n```\n", 1),
        ("```mermaid\nflowchart LR\n", 1),
    ],
    ids=["whole", "open-subgraph", "closed-alt", "unknown-type", "open-fence"],
)
def test_a_broken_diagram_is_seen(text: str, mistakes: int) -> None:
    assert len(list(mermaid_mistakes(text))) == mistakes
