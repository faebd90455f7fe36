"""Role k3s asks of k3s only what the contract lists, and the stand-in reads the same contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "k3s"
STAND_IN = ROOT / "molecule" / "standin"
CONTRACT: dict[str, Any] = yaml.safe_load((STAND_IN / "contract.yml").read_text(encoding="utf-8"))
VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
TEXTS = {
    path: path.read_text(encoding="utf-8")
    for part in ("tasks", "templates", "vars", "handlers")
    for path in sorted((ROLE / part).iterdir())
}
# Paths of k3s' own, whether written out or by one of the role's variables.
OWN = re.compile(r"(?:/etc/rancher|/var/lib/rancher/k3s|/var/lib/kubelet|/run/k3s)[\w./-]*")
# What the role itself puts there; k3s only has to read it because an option or a directory says so.
BROUGHT = {"/etc/rancher/k3s", "/etc/rancher/k3s/token", "/var/lib/rancher/k3s", "/var/lib/rancher/k3s/agent"}


def used_paths() -> set[str]:
    found = set()
    for text in TEXTS.values():
        for name in ("__k3s_bin", "__k3s_config_dir", "__k3s_images_dir", "__k3s_data_dir", "__k3s_token_file"):
            text = re.sub(rf"{{{{ {name}( \| quote)? }}}}", VARS[name], text)
        found |= {path.rstrip("./") for path in OWN.findall(text)}
    return found


@pytest.mark.parametrize("mode", ["server", "agent"])
def test_every_key_of_config_yaml_is_in_the_contract(mode: str) -> None:
    keys = set(VARS["__k3s_config_node"])
    if mode == "server":
        keys |= set(VARS["__k3s_config_server"])
    else:
        keys |= set(VARS["__k3s_config_join"])
    listed = {name for name, option in CONTRACT["options"].items() if mode in option["commands"]}
    assert keys <= listed


def test_every_key_that_an_inventory_of_the_lab_adds_is_in_the_contract() -> None:
    settings = yaml.safe_load((ROOT / "inventories/local/group_vars/all.yml").read_text(encoding="utf-8"))
    for mode in ("server", "agent"):
        listed = {name for name, option in CONTRACT["options"].items() if mode in option["commands"]}
        assert set(settings.get(f"k3s_{mode}_config", {})) <= listed


def test_every_path_that_the_role_uses_is_promised() -> None:
    promised = set(CONTRACT["paths"])
    unknown = {
        path
        for path in used_paths() - BROUGHT
        if not any(path == known or path.startswith(f"{known}/") for known in promised)
        and not any(known.startswith(f"{path}/") for known in promised)
    }
    assert not unknown


def test_every_command_that_the_role_calls_is_promised() -> None:
    called = set()
    for text in TEXTS.values():
        called |= set(re.findall(r'argv: \["\{\{ __k3s_bin \}\}", ([\w-]+)', text))
        called |= set(re.findall(r'- "\{\{ __k3s_bin \}\}"\n\s+- ([\w-]+)', text))
    assert called, "the role calls k3s somewhere"
    assert called <= set(CONTRACT["commands"])


def test_the_unit_is_the_one_that_is_promised() -> None:
    unit = (ROLE / "templates" / "k3s.service.j2").read_text(encoding="utf-8")
    assert re.search(r"^Type=notify$", unit, re.M)
    assert re.search(r"^KillMode=process$", unit, re.M)
    assert re.search(r"^ExecStart=\{\{ __k3s_bin \}\} \{\{ k3s_mode \}\}$", unit, re.M), "options live in config.yaml"


@pytest.mark.parametrize("section", ["options", "flags", "commands", "paths", "labels", "conditions", "ports"])
def test_every_promise_names_its_page(section: str) -> None:
    for name, entry in CONTRACT[section].items():
        assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?", entry["page"]), name
    for behaviour in CONTRACT["behaviour"]:
        assert behaviour["page"], behaviour["what"]


def test_options_are_well_formed() -> None:
    for name, option in CONTRACT["options"].items():
        assert option["type"] in {"string", "bool", "list"}, name
        assert set(option["commands"]) <= {"server", "agent"}, name
        assert set(option) <= {"commands", "type", "default", "page"}, name


def test_the_stand_in_embeds_the_contract_and_asks_it_for_every_option() -> None:
    assert "//go:embed contract.yml" in (STAND_IN / "options.go").read_text(encoding="utf-8")
    asked = set()
    for path in STAND_IN.glob("*.go"):
        asked |= set(re.findall(r'\.(?:text|flag|list)\("([a-z-]+)"\)', path.read_text(encoding="utf-8")))
        asked |= set(re.findall(r'\.options\["([a-z-]+)"\]', path.read_text(encoding="utf-8")))
    # The loop over ranges in config.go names its two options in a list.
    asked |= {"cluster-cidr", "service-cidr"}
    assert asked == set(CONTRACT["options"]), "no option that is listed but ignored, none that is read but not listed"


def test_labels_and_conditions_are_set_by_the_stand_in() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in STAND_IN.glob("*.go"))
    for name in CONTRACT["labels"]:
        assert name in source
    assert "EtcdIsVoter" in source
