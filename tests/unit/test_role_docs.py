"""The schema of the variables is the one source: defaults, argument_specs and README tables say the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from preflight import schema as schemas  # noqa: E402

from scripts import generate_docs  # noqa: E402

DIRECTORY = ROOT / "roles" / "preflight" / "files" / "schema"
TOPICS = schemas.topics(DIRECTORY)
ROLES = sorted(path.parent.name for path in ROOT.glob("roles/*/tasks"))
DOCUMENTED = [role for role in ROLES if "x-entry-points" in TOPICS.get(role, {})]
VARIABLES = schemas.variables(DIRECTORY)


def load(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def test_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    different = generate_docs.main(["--check"])
    assert different == 0, capsys.readouterr().out


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_its_variables_in_the_schema(role: str) -> None:
    assert "x-entry-points" in TOPICS.get(role, {}), f"roles/preflight/files/schema/{role}.yml"


@pytest.mark.parametrize("role", DOCUMENTED)
def test_defaults_and_schema_agree(role: str) -> None:
    properties = TOPICS[role]["properties"]
    defaults = load(ROOT / "roles" / role / "defaults" / "main.yml")
    declared = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    assert defaults == declared
    undeclared = [
        name for name, schema in properties.items() if "default" not in schema and not schema.get("x-internal")
    ]
    assert undeclared == [], "a variable has a default or is given by the playbook (x-internal)"


@pytest.mark.parametrize("role", DOCUMENTED)
def test_names_carry_the_roles_prefix(role: str) -> None:
    assert [name for name in TOPICS[role]["properties"] if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", DOCUMENTED)
def test_entry_points_exist(role: str) -> None:
    entries = set(TOPICS[role]["x-entry-points"])
    assert [entry for entry in entries if not (ROOT / "roles" / role / "tasks" / f"{entry}.yml").exists()] == []
    named = {entry for schema in TOPICS[role]["properties"].values() for entry in schema.get("x-in", [])}
    assert named <= entries


def test_shared_defaults_and_schema_agree() -> None:
    properties = TOPICS["platform"]["properties"]
    declared = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    assert load(ROOT / "group_vars" / "all" / "platform.yml") == declared
    assert set(TOPICS["platform"]["required"]) == set(properties) - set(declared)


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_described_and_its_default_and_examples_are_valid(name: str) -> None:
    schema = VARIABLES[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema.get("description"), f"{name} has no description"
    assert "\n" not in schema["description"]
    values = schema.get("examples", [])
    if "default" in schema and "{{" not in str(schema["default"]):
        values = [*values, schema["default"]]
    for value in values:
        assert [finding.path for finding in schemas.check(name, value, schema)] == []
    if not schema.get("x-internal"):
        assert schemas.wanted_for(schema) != "a valid value"
        assert "README" not in schemas.example(schema), f"{name} has neither an example nor a plain default"
