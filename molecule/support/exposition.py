"""What a pod tells Prometheus, asked for by a test."""

from __future__ import annotations


def metrics(address: str, port: int) -> dict[str, float]:
    """In the cluster: the value of each sample by its name and labels, as they stand in the answer."""
    import http.client

    connection = http.client.HTTPConnection(address, port, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    pairs = [line.rsplit(" ", 1) for line in lines if line and line[0] != "#"]
    return {name: float(value) for name, value in pairs}
