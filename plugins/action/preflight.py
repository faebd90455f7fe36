"""Action plugin `preflight`: every mistake in the inventory, the variables or the hosts, all at once, one line each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.vars.reserved import is_reserved_name

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # another ansible-core: lines then name the inventory instead of the file and line
    Origin = None

PLUGINS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGINS / "module_utils"))

from preflight import hosts, inventory, platform, schema, variables, yaml_files  # noqa: E402
from preflight.inventory import Inventory, Value  # noqa: E402
from preflight.mistake import Mistake, in_order, summary  # noqa: E402
from service_definition import load, load_schema  # noqa: E402

ROOT = PLUGINS.parent
SERVICES = ROOT / "services"
SERVICE_SCHEMA = ROOT / "roles/service/files/service.schema.yml"
PRECEDENCE = ("all_plugins_play", "all_plugins_inventory")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: check (variables or hosts), schema (directory), wanted (what hosts must be like)."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "check": {"type": "str", "required": True, "choices": ["variables", "hosts"]},
                "schema": {"type": "path", "required": True},
                "wanted": {"type": "dict", "default": {}},
            }
        )
        self._variables = task_vars or {}
        self._directory = Path(arguments["schema"])
        if arguments["check"] == "variables":
            mistakes = self._check_variables()
        else:
            mistakes = self._check_hosts(arguments["wanted"])
        lines = list(dict.fromkeys(map(str, in_order(mistakes))))
        for line in lines:
            Display().display(line, color=constants.COLOR_ERROR)
        if lines:
            result.update(failed=True, msg=summary(len(lines)))
        elif arguments["check"] == "variables":
            for notice in self._notices():
                Display().display(notice, color=constants.COLOR_HIGHLIGHT)
            result.update(changed=False)
        else:
            result.update(changed=False)
        return result

    def _check_variables(self) -> list[Mistake]:
        sources = [Path(source) for source in self._variables["ansible_inventory_sources"] if Path(source).exists()]
        files = [yaml_files.read_inventory(source) for source in sources]
        broken = [mistake for each in files for mistake in each.mistakes]
        if broken:  # Ansible has dropped whole files; what remains says nothing
            return broken
        declared = variables.Declared.read(ROOT, self._directory)
        everything = self._inventory(declared.schemas, files)
        mistakes = list(configuration(everything.source))
        mistakes += inventory.check(everything)
        mistakes += variables.check(everything, declared)
        lookup = self._lookup(everything, declared.schemas)
        mistakes += platform.check(everything, lookup, SERVICES)
        if not mistakes:
            mistakes += load(SERVICES, lookup("services_enabled").value, load_schema(SERVICE_SCHEMA))[1]
        return mistakes

    def _notices(self) -> list[str]:
        declared = schema.variables(self._directory)
        return list(platform.notices(self._lookup(self._inventory(declared, self._files()), declared)))

    def _check_hosts(self, wanted: Mapping[str, Any]) -> list[Mistake]:
        everything = self._inventory(schema.variables(self._directory), self._files())
        facts, allowed = {}, {}
        for host in everything.hosts():
            collected = self._variables["hostvars"][host].get("__preflight_facts", {})
            if "facts" in collected:
                facts[host] = hosts.Facts(**collected["facts"])
            allow = everything.variables[host].get("k3s_allow_cgroup_v1")
            allowed[host] = allow is not None and allow.value is True
        return list(hosts.check(everything, facts, wanted, allowed))

    def _files(self) -> list[yaml_files.Files]:
        sources = [Path(source) for source in self._variables["ansible_inventory_sources"]]
        return [yaml_files.read_inventory(source) for source in sources if source.exists()]

    def _inventory(self, declared: Iterable[str], files: list[yaml_files.Files]) -> Inventory:
        """Groups and the declared variables of every host, as Ansible has merged them."""
        names = [yaml_files.relative(Path(source)) for source in self._variables["ansible_inventory_sources"]]
        groups = {name: list(members) for name, members in self._variables["groups"].items()}
        places = {}
        for name in {*groups, *groups["all"]}:
            found = [where for each in files if (where := each.where(name, ""))]
            if found:
                places[name] = found[-1]
        source = ", ".join(names) or "inventory"
        definitions = yaml_files.Files(definitions=[entry for each in files for entry in each.definitions])
        definitions.definitions += yaml_files.read_vars(ROOT).definitions
        values = {
            host: self._host_values(host, set(declared), definitions, source)
            for host in dict.fromkeys(["localhost", *groups["all"]])
        }
        return Inventory(source, groups, values, places)

    def _host_values(
        self, host: str, declared: set[str], definitions: yaml_files.Files, source: str
    ) -> dict[str, Value]:
        hostvars = self._variables["hostvars"]
        raw = hostvars.raw_get(host)
        found = {}
        for name in raw:
            if name not in declared and (is_reserved_name(name) or name.startswith(("ansible_", "_"))):
                continue
            value = evaluate(hostvars[host], name) if name in declared else None
            default = definitions.where(name, source, value) if value is None or isinstance(value, bool) else source
            found[name] = Value(plain(value), origin(raw[name]) or origin_of_key(raw, name, declared) or default)
        return found

    def _lookup(self, everything: Inventory, declared: Mapping[str, schema.Schema]) -> platform.Lookup:
        controller = everything.variables["localhost"]

        def lookup(name: str) -> Value:
            default = Value(declared.get(name, {}).get("default"), everything.source)
            return controller.get(name, default)

        return lookup


def evaluate(hostvars: Mapping[str, Any], name: str) -> Any:
    """Nothing of the exception's text but the undefined name is shown: it could quote the value."""
    try:
        return hostvars[name]
    except AnsibleUndefinedVariable as error:
        return variables.Unusable(str(error.message))
    except Exception as error:  # whatever a template raises is the user's mistake, never our traceback
        return variables.Unusable(type(error).__name__)


def plain(value: Any) -> Any:
    """Without Ansible's lazy containers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def origin(value: Any) -> str | None:
    """Where a value was written: file and line, or the command line."""
    tag = Origin.get_tag(value) if Origin is not None else None
    if tag is None:
        return None
    if not tag.path:
        return variables.COMMAND_LINE if tag.description and "-e" in tag.description else tag.description
    where = yaml_files.relative(Path(tag.path))
    return f"{where}:{tag.line_num}" if tag.line_num else where


def origin_of_key(raw: Mapping[str, Any], name: str, declared: set[str]) -> str | None:
    """Undeclared names are shown by their key: its place is right as long as one file alone sets it."""
    return None if name in declared else next((origin(key) for key in raw if key == name), None)


def configuration(source: str) -> Iterable[Mistake]:
    """With Ansible's own order the shared defaults would win over every inventory."""
    order = list(constants.VARIABLE_PRECEDENCE)
    if [entry for entry in order if entry in PRECEDENCE] != list(PRECEDENCE):
        yield Mistake(
            "ansible.cfg",
            "precedence",
            "Ansible's own order",
            "the project's ansible.cfg in use",
            "ANSIBLE_CONFIG=ansible.cfg",
        )
