"""What gathers rules beside Prometheus: the API server is played by the test, promtool is the real one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "images/prometheus/scripts"
GOOD = json.dumps({"groups": [{"name": "shop", "rules": [{"alert": "ShopDown", "expr": "shop_up == 0"}]}]})
BAD = json.dumps({"groups": [{"name": "shop", "rules": [{"alert": "ShopDown", "expr": "shop_up =="}]}]})


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("gather_rules")


class Api:
    """ConfigMaps by namespace and name; a namespace that is None does not answer."""

    def __init__(self, **maps: dict[str, dict[str, str]] | None) -> None:
        self.maps = maps

    def get(self, path: str) -> Any:
        prefix, _, selector = path.partition("?")
        assert selector == "labelSelector=slipway/prometheus-rules%3Dtrue"
        namespace = prefix.removeprefix("/api/v1/namespaces/").removesuffix("/configmaps")
        found = self.maps[namespace]
        if found is None:
            raise OSError("timed out")
        metadata = {name: {"namespace": namespace, "name": name} for name in found}
        return {"items": [{"metadata": metadata[name], "data": data} for name, data in found.items()]}


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def refused(directory: Path) -> list[dict[str, str]]:
    content = json.loads((directory / "refused.yml").read_text(encoding="utf-8"))
    return [rule["labels"] for group in content["groups"] for rule in group["rules"]]


def test_rules_come_change_and_go(script: Any, tmp_path: Path) -> None:
    api = Api(shops={"shop": {"alerts.yml": GOOD}}, other={})
    gatherer = script.Gatherer(tmp_path, ["shops", "other"], api.get)
    assert [gatherer.look(), gatherer.look()] == [True, False]
    assert files(tmp_path) == {"shops_shop_alerts.yml", "refused.yml"}
    assert (tmp_path / "shops_shop_alerts.yml").read_text(encoding="utf-8") == GOOD
    api.maps["shops"] = {"shop": {"alerts.yml": GOOD.replace("0", "2")}}
    assert [gatherer.look(), gatherer.look()] == [True, False]
    assert "2" in (tmp_path / "shops_shop_alerts.yml").read_text(encoding="utf-8")
    api.maps["shops"] = {}
    assert [gatherer.look(), gatherer.look()] == [True, False]
    assert files(tmp_path) == {"refused.yml"}


def test_what_promtool_refuses_is_left_out_and_named(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = Api(shops={"shop": {"alerts.yml": BAD}, "till": {"alerts.yml": GOOD}})
    gatherer = script.Gatherer(tmp_path, ["shops"], api.get)
    assert gatherer.look()
    assert files(tmp_path) == {"shops_till_alerts.yml", "refused.yml"}
    assert refused(tmp_path) == [{"exported_namespace": "shops", "configmap": "shop", "file": "alerts.yml"}]
    [line] = [line for line in capsys.readouterr().out.splitlines() if "refused" in line]
    assert line.startswith("shops/shop alerts.yml: refused: ")
    assert script.promtool((tmp_path / "refused.yml").read_text(encoding="utf-8")) == ""
    api.maps["shops"] = {"shop": {"alerts.yml": GOOD}}
    assert gatherer.look()
    assert refused(tmp_path) == []


def test_what_the_api_server_cannot_tell_stays(script: Any, tmp_path: Path) -> None:
    api = Api(shops={"shop": {"alerts.yml": GOOD}}, other={"till": {"alerts.yml": GOOD}})
    gatherer = script.Gatherer(tmp_path, ["shops", "other"], api.get)
    gatherer.look()
    api.maps |= {"shops": None, "other": {}}
    assert gatherer.look()
    assert files(tmp_path) == {"shops_shop_alerts.yml", "refused.yml"}


def test_prometheus_alone_is_told(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in (("7", "prometheus"), ("8", "python3"), ("9", "pause")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{name}\n", encoding="utf-8")
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(script.os, "kill", lambda process, number: told.append((process, number)))
    script.tell(tmp_path)
    assert told == [(7, 1)]
