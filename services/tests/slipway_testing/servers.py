"""Applications on real sockets, each in a thread with an event loop of its own, served as in production."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from slipway_kit.lifecycle import Lifecycle, Server
from slipway_kit.main import uvicorn_config

# Far more than a test needs; only a hanging one notices.
STOP_SECONDS = 20


def listen() -> socket.socket:
    """A socket whose address can be told to others before its server runs."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def url_of(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


class LiveServer:
    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url
        self.lifecycle = server.lifecycle


@contextmanager
def live(app: FastAPI, sock: socket.socket | None = None) -> Iterator[LiveServer]:
    """A service, with the settings and the server of `slipway_kit.main`."""
    runtime = app.state.runtime
    config = uvicorn_config(app, runtime.settings)
    with _running(Server(config, runtime.lifecycle, 0), sock or listen()) as server:
        yield server


@contextmanager
def live_asgi(app: Any, sock: socket.socket | None = None) -> Iterator[LiveServer]:
    """Any ASGI application: stands for a service that is not the one under test."""
    config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None)
    with _running(Server(config, Lifecycle(), 0), sock or listen()) as server:
        yield server


@contextmanager
def _running(server: Server, sock: socket.socket) -> Iterator[LiveServer]:
    server.config.timeout_graceful_shutdown = 2
    thread = threading.Thread(target=_serve, args=(server, sock), name="live-server", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        thread.join(0.01)
    try:
        yield LiveServer(server, url_of(sock))
    finally:
        server.drain(0)
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            raise RuntimeError("the server does not stop")


def _serve(server: Server, sock: socket.socket) -> None:
    loop_factory = server.config.get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(server.serve(sockets=[sock]))
