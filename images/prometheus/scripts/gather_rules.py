"""Gathers rules that others bring: the ConfigMaps with the label slipway/prometheus-rules of some namespaces.

    gather_rules.py --directory DIRECTORY --interval SECONDS NAMESPACE...

Runs beside Prometheus. Each file of such a ConfigMap becomes a file of the directory once promtool accepts it, and
Prometheus is told to read again. One that promtool refuses is left out; the log says why, and the series
monitoring:refused_rules:info names it, so that an alert does. What the API server cannot tell at the moment stays.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

LABEL = "slipway/prometheus-rules=true"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REFUSED = "refused.yml"
PROGRAM = "prometheus"

Get = Callable[[str], Any]
# Whether some rules are refused, and why.
Check = Callable[[str], str]


def get(path: str) -> Any:
    """Return what the API server says about a path, asked with the pod's own account; OSError if it says nothing."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    # The token is read every time: the kubelet renews it.
    token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()
    address = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"https://{address}:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310
        return json.load(answer)


def promtool(text: str) -> str:
    """Return why promtool refuses a file of rules, or nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            ["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode == 0:
            return ""
        lines = (done.stdout + done.stderr).replace(file.name, "the file").split()
        return " ".join(lines) or "promtool ended with an error"


class Gatherer:
    """What was gathered so far: the files of a directory, and what was refused."""

    def __init__(self, directory: Path, namespaces: list[str], ask: Get = get, check: Check = promtool) -> None:
        self._directory, self._namespaces, self._ask, self._check = directory, namespaces, ask, check
        # What was said about a text already: promtool is not asked each time.
        self._known: dict[str, str] = {}

    def look(self) -> bool:
        """Look once; return whether a file was changed."""
        found: dict[str, str] = {}
        refused: list[dict[str, str]] = []
        silent = []
        for namespace in self._namespaces:
            try:
                maps = self._ask(f"/api/v1/namespaces/{namespace}/configmaps?labelSelector={quote(LABEL)}")["items"]
            except OSError as error:
                print(f"configmaps of {namespace}: {error}; what was there stays", flush=True)
                silent.append(namespace)
                continue
            for document in maps:
                self._one(document, found, refused)
        for namespace in silent:
            found |= {
                path.name: path.read_text(encoding="utf-8") for path in self._directory.glob(f"{namespace}_*.yml")
            }
        found[REFUSED] = refusals(refused)
        return self._write(found)

    def _one(self, document: Mapping[str, Any], found: dict[str, str], refused: list[dict[str, str]]) -> None:
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        for key, text in sorted((document.get("data") or {}).items()):
            if text not in self._known:
                self._known[text] = why = self._check(text)
                print(f"{namespace}/{name} {key}: {f'refused: {why}' if why else 'accepted'}", flush=True)
            if self._known[text]:
                refused.append({"exported_namespace": namespace, "configmap": name, "file": key})
            else:
                # No name of Kubernetes has an underscore.
                found[f"{namespace}_{name}_{key.removesuffix('.yml')}.yml"] = text

    def _write(self, wanted: Mapping[str, str]) -> bool:
        changed = False
        for path in self._directory.glob("*.yml"):
            if path.name not in wanted:
                path.unlink()
                changed = True
        for name, text in wanted.items():
            path = self._directory / name
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                # Prometheus must never read half a file.
                part = path.with_suffix(".part")
                part.write_text(text, encoding="utf-8")
                part.replace(path)
                changed = True
        return changed


def refusals(refused: list[dict[str, str]]) -> str:
    """Return the rules that make a series of each file that was refused."""
    rules = [{"record": "monitoring:refused_rules:info", "expr": "1", "labels": labels} for labels in refused]
    return json.dumps({"groups": [{"name": "refused", "rules": rules}]})


def tell(processes: Path = Path("/proc")) -> None:
    """Tell Prometheus, which shares this pod's processes, to read its settings again."""
    for path in processes.glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # one that has just ended
            if path.read_text(encoding="utf-8").strip() == PROGRAM:
                os.kill(int(path.parent.name), signal.SIGHUP)


def main() -> None:
    """Gather for ever."""
    parser = argparse.ArgumentParser(description="Gathers rules that others bring.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("namespaces", nargs="+")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    gatherer = Gatherer(arguments.directory, arguments.namespaces)
    while True:
        if gatherer.look():
            tell()
        time.sleep(arguments.interval)


if __name__ == "__main__":
    main()
