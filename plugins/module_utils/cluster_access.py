"""Reads a cluster over its API for the command-line tools and the tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import kubernetes
import urllib3
import yaml


class ClusterUnreachableError(Exception):
    """The cluster cannot be asked; the message is one line with the next step."""


class RefusedError(ClusterUnreachableError):
    """The API server refuses a request; `reason` is its code and what it says."""

    def __init__(self, method: str, path: str, reason: str) -> None:
        super().__init__(f"the API server refuses {method} {path}: {reason}")
        self.reason = reason


def state_directory(environment: str) -> Path:
    """Return where an environment's kubeconfig, CA and secrets lie (the twin of slipway_state_dir)."""
    base = os.environ.get("SLIPWAY_STATE") or "~/.local/state/slipway"
    return Path(base).expanduser() / environment


class Cluster:
    """A cluster's API, as plain objects."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._api = kubernetes.config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the items of a collection, for example of /api/v1/nodes."""
        return list(self.get(path, **query)["items"])

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return one object."""
        answer: dict[str, Any] = json.loads(self._request(path, query, timeout=10).read())
        return answer

    def proxied(self, namespace: str, service: str, port: int, path: str) -> Any:
        """Return the JSON that a Service of the cluster has at a path with its query, by way of the API server."""
        place = f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy"
        plain, _, query = path.partition("?")
        return json.loads(self._request(place + plain, dict(parse_qsl(query)), timeout=10).read())

    def delete(self, path: str, grace_seconds: int) -> None:
        """Delete one object; 0 seconds of grace take a pod away without asking its processes."""
        self._request(path, {"gracePeriodSeconds": str(grace_seconds)}, timeout=10, method="DELETE")

    def logs(self, namespace: str, pod: str, container: str, lines: int, follow: bool) -> Iterator[str]:
        """Yield the lines of a container's log; with `follow` until the container ends."""
        query = {"container": container, "tailLines": str(lines), "follow": str(follow).lower()}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        rest = ""
        for piece in self._request(path, query, timeout=None).response.stream(decode_content=True):
            *whole, rest = (rest + piece.decode(errors="replace")).split("\n")
            yield from whole
        if rest:
            yield rest

    def _request(self, path: str, query: dict[str, str], timeout: int | None, method: str = "GET") -> Any:
        request = self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*"},
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._api.call_api(*request, _request_timeout=timeout)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = str(getattr(error, "reason", error)).splitlines()[0]
            raise ClusterUnreachableError(
                f"the API server of {self.kubeconfig} does not answer ({reason}); is a host down? try: make up"
            ) from None
        if answer.status >= 400:
            raise RefusedError(method, path, _reason(answer))
        return answer


def _reason(answer: Any) -> str:
    """Why a request was refused: what the API server says itself, if it does."""
    try:
        told = json.loads(answer.read())["message"]
    except (ValueError, KeyError, TypeError):
        told = ""
    return f"{answer.status} {told or answer.reason}"


def connect(environment: str) -> Cluster:
    """Return the cluster of an environment; raise ClusterUnreachableError where it has none yet."""
    kubeconfig = state_directory(environment) / "kubeconfig"
    try:
        return Cluster(kubeconfig)
    except (FileNotFoundError, kubernetes.config.ConfigException, yaml.YAMLError):
        raise ClusterUnreachableError(
            f"found no usable kubeconfig at {kubeconfig}; make the platform first: make up"
        ) from None
