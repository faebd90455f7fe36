"""Logs and traces as somebody finds them: the functions run in a pod, the class asks by them."""

from __future__ import annotations

import time
from typing import Any

from cluster_client import Client

LOKI, JAEGER = "http://loki.monitoring.svc:3100", "http://jaeger.monitoring.svc:16686"


def fetch(url: str, method: str = "GET", content: Any = None) -> tuple[int, str]:
    """In the cluster: status and text of an answer; without one, 0 and why."""
    import http.client
    import json
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    body = None if content is None else json.dumps(content).encode()
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


class Telemetry:
    """What Loki and Jaeger know."""

    def __init__(self, client: Client, loki: str = LOKI, jaeger: str = JAEGER) -> None:
        self.client, self.loki, self.jaeger = client, loki, jaeger

    def ask(self, url: str, method: str = "GET", content: Any = None) -> tuple[int, str]:
        """Return status and text of an answer."""
        status, text = self.client.call(fetch, url=url, method=method, content=content)
        return int(status), str(text)

    def lines(self, query: str, seconds: int = 600) -> list[tuple[dict[str, str], str]]:
        """Return the lines of a query of the last so many seconds, each with its labels."""
        import json
        from urllib.parse import urlencode

        now = time.time()
        given = {"query": query, "start": f"{now - seconds:.0f}", "end": f"{now + 60:.0f}", "limit": "5000"}
        status, text = self.ask(f"{self.loki}/loki/api/v1/query_range?{urlencode(given)}")
        assert status == 200, text
        streams = json.loads(text)["data"]["result"]
        return [(stream["stream"], value[1]) for stream in streams for value in stream["values"]]

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace: `service`, `name`, `id`, `parent` ("" for none), `tags`, and `seconds`."""
        import json

        status, text = self.ask(f"{self.jaeger}/api/traces/{trace_id}")
        if status == 404:
            return []
        assert status == 200, text
        found = []
        for trace in json.loads(text)["data"]:
            for span in trace["spans"]:
                parents = [one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"]
                found.append(
                    {
                        "service": trace["processes"][span["processID"]]["serviceName"],
                        "name": span["operationName"],
                        "id": span["spanID"],
                        "parent": parents[0] if parents else "",
                        "tags": {tag["key"]: tag["value"] for tag in span["tags"]},
                        "process": {tag["key"]: tag["value"] for tag in trace["processes"][span["processID"]]["tags"]},
                        "seconds": span["duration"] / 1e6,
                    }
                )
        return found
