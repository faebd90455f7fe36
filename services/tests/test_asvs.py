"""The table of OWASP ASVS 5.0 in services/README.md: complete, and each test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"
WEB = TESTS.parent / "web" / "src"
# Requirements of each section of the chapters V4, V5, V6, V9 and V16 of ASVS 5.0.0.
SECTIONS = {
    "4.1": 5,
    "4.2": 5,
    "4.3": 2,
    "4.4": 4,
    "5.1": 1,
    "5.2": 6,
    "5.3": 3,
    "5.4": 3,
    "6.1": 3,
    "6.2": 12,
    "6.3": 8,
    "6.4": 6,
    "6.5": 8,
    "6.6": 4,
    "6.7": 2,
    "6.8": 4,
    "9.1": 3,
    "9.2": 4,
    "16.1": 1,
    "16.2": 5,
    "16.3": 4,
    "16.4": 3,
    "16.5": 4,
}
REQUIREMENTS = [f"{section}.{number + 1}" for section, count in SECTIONS.items() for number in range(count)]
# What may stand in place of tests, always with its reason or its place.
INSTEAD = re.compile(r"(not applicable|documentation): \S.{8,}")
NAMED = re.compile(r"`(test_\w+)::(test_\w+)`")


def rows() -> list[tuple[str, str]]:
    """(requirement, what shows it), in the order of the table."""
    section = README.read_text().split("## OWASP ASVS 5.0\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [(row[0], row[2]) for row in cells if row[0][:1].isdigit()]


def test_every_requirement_stands_there_once_in_order() -> None:
    assert [requirement for requirement, _ in rows()] == REQUIREMENTS


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_what_shows_it_exists(requirement: str) -> None:
    (shown,) = [shown for name, shown in rows() if name == requirement]
    named = NAMED.findall(shown)
    assert named or INSTEAD.fullmatch(shown), f"{requirement}: wanted a test, or why there is none"
    # A name of another form would be passed over.
    assert len(named) == shown.count("::"), shown
    for file, test in named:
        assert test in names_in(file), f"{requirement}: there is no {file}::{test}"


def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / f"{file}.py").read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_password_fields_are_masked_and_take_what_is_pasted() -> None:
    """ASVS 6.2.6, 6.2.7. The page is driven in a browser elsewhere; this is what no such test would see change."""
    sources = {path: path.read_text() for path in WEB.rglob("*.tsx")}
    (field,) = [path for path, text in sources.items() if re.search(r"type=.*password", text)]
    assert "type={shown ? 'text' : 'password'}" in sources[field]
    assert re.search(r"\[shown, \w+\] = useState\(false\)", sources[field])
    # Every field for a password is that component.
    for text in sources.values():
        for element in re.findall(r"<(\w+)[^<]*autoComplete=\"[a-z]+-password\"", text):
            assert element == "PasswordField"
    # Password managers know a field by these words, and nothing keeps the clipboard out.
    assert any('autoComplete="current-password"' in text for text in sources.values())
    assert any('autoComplete="new-password"' in text for text in sources.values())
    assert not [path for path, text in sources.items() if "onPaste" in text]
