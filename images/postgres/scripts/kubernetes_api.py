"""The few calls to the Kubernetes API that the scripts beside it need, with the pod's own service account."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Document = dict[str, Any]


class ApiError(Exception):
    """The API said no, or nothing; `status` is 0 when nothing was said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubernetesApi:
    """One API server, as this pod sees it."""

    def __init__(self, url: str, service_account: Path = SERVICE_ACCOUNT, timeout: float = 3.0) -> None:
        self._url = url
        self._service_account = service_account
        self._timeout = timeout

    @classmethod
    def in_cluster(cls) -> KubernetesApi:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")

    def get(self, path: str) -> Document:
        return self._request("GET", path, None)

    def create(self, path: str, document: Document) -> Document:
        return self._request("POST", path, document)

    def replace(self, path: str, document: Document) -> Document:
        return self._request("PUT", path, document)

    def _request(self, method: str, path: str, document: Document | None) -> Document:
        # The token is read every time: the kubelet renews it.
        token = (self._service_account / "token").read_text(encoding="utf-8").strip()
        request = urllib.request.Request(  # noqa: S310 the URL is the API server's
            self._url + path,
            method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout, context=self._tls()) as response:  # noqa: S310
                answer: Document = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, f"{method} {path}: {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error

    def _tls(self) -> ssl.SSLContext | None:
        if not self._url.startswith("https:"):
            return None
        return ssl.create_default_context(cafile=str(self._service_account / "ca.crt"))
