"""A wire that can be cut: what a service depends on goes away for one test, and stays for all others."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

# refusing: nobody listens. hanging: connections stand and nothing moves, as behind a firewall that drops packets.
State = Literal["open", "refusing", "hanging"]


class Wire:
    """Forwards TCP from a port of its own to `target`; one thread for all connections."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.host = "127.0.0.1"
        self._state: State = "open"
        self._lock = threading.Lock()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def set(self, state: State) -> None:
        """Takes effect before it returns, also for the connections there are."""
        with self._lock:
            if state == "refusing" and self._state != "refusing":
                self._listener.close()
                self._drop()
            elif state != "refusing" and self._state == "refusing":
                self._listener = self._listen(self.port)
            elif state == "open" and self._state == "hanging":
                # What was said meanwhile is lost: nobody can take such a connection up again.
                self._drop()
            self._state = state

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._listener.close()
        self._drop()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, port))
        listener.listen(128)
        listener.setblocking(False)
        return listener

    def _drop(self) -> None:
        for pair in self._pairs:
            for sock in pair:
                sock.close()
        self._pairs.clear()

    def _run(self) -> None:
        while not self._ended.wait(0.001):
            with self._lock:
                if self._state != "refusing":
                    self._accept()
                if self._state == "open":
                    self._forward()

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(self.target, timeout=5)
            except OSError:
                near.close()
                return
            self._pairs.append((near, far))

    def _forward(self) -> None:
        for pair in list(self._pairs):
            with selectors.DefaultSelector() as selector:
                selector.register(pair[0], selectors.EVENT_READ, pair[1])
                selector.register(pair[1], selectors.EVENT_READ, pair[0])
                ready = selector.select(0)
            for key, _ in ready:
                if not self._move(key.fileobj, key.data):  # type: ignore[arg-type]
                    self._pairs.remove(pair)
                    for sock in pair:
                        sock.close()
                    break

    @staticmethod
    def _move(source: socket.socket, sink: socket.socket) -> bool:
        try:
            data = source.recv(256 * 1024)
            if data:
                sink.setblocking(True)
                sink.sendall(data)
            return bool(data)
        except OSError:
            return False


@contextmanager
def wire(host: str, port: int) -> Iterator[Wire]:
    made = Wire(host, port)
    try:
        yield made
    finally:
        made.close()


def wire_to(url: str) -> Wire:
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    return Wire(host, int(port))
