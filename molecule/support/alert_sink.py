"""A pod that takes what Alertmanager sends: messages of Slack, webhooks, and mail."""

from __future__ import annotations

import inspect
from typing import Any

from cluster_client import Client, Pods, restricted_pod

HTTP, MAIL = 8080, 2525


def serve(http_port: int, mail_port: int) -> None:
    """In the pod: keep every message; tell them all, as JSON, to whoever asks by GET."""
    import email
    import email.policy
    import http.server
    import json
    import socketserver
    import threading

    kept: list[dict[str, object]] = []

    class Web(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.append({"to": self.path, "body": body})
            self._answer(b"ok")

        def do_GET(self) -> None:
            self._answer(json.dumps(kept).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            to: list[str] = []
            self._say("220 sink")
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "DATA":
                    self._say("354 go on")
                    lines = iter(self.rfile.readline, b".\r\n")
                    message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                    text = message.get_body(("plain",))
                    kept.append({"to": to, "subject": message["Subject"], "body": text.get_content() if text else ""})
                elif word == "RCPT":
                    to.append(line.partition("<")[2].partition(">")[0])
                self._say("221 bye" if word == "QUIT" else "250 ok")
                if word == "QUIT":
                    return

        def _say(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\r\n")

    mail = socketserver.ThreadingTCPServer(("", mail_port), Mail)
    threading.Thread(target=mail.serve_forever, daemon=True).start()
    http.server.ThreadingHTTPServer(("", http_port), Web).serve_forever()


def kept(address: str, port: int) -> Any:
    """In the cluster: what a sink has taken so far."""
    import json
    import urllib.request

    with urllib.request.urlopen(f"http://{address}:{port}/", timeout=10) as answer:
        return json.loads(answer.read())


class Sink:
    """A sink that runs: `web` and `mail` are its addresses."""

    def __init__(self, pods: Pods, namespace: str, image: str) -> None:
        code = f"from __future__ import annotations\n{inspect.getsource(serve)}\nserve({HTTP}, {MAIL})"
        pod = restricted_pod("sink", image, container={"command": ["python3", "-c", code]})
        pods.core.create_namespaced_pod(namespace, pod)
        self.address = pods.wait_ready(namespace, "sink").status.pod_ip
        self.web, self.mail = f"http://{self.address}:{HTTP}", f"{self.address}:{MAIL}"

    def messages(self, client: Client) -> list[dict[str, Any]]:
        """Return all messages so far, the first one first."""
        found: list[dict[str, Any]] = client.call(kept, address=self.address, port=HTTP)
        return found
