"""SIGTERM without a lost request: readiness off, serve on for a while, finish what is in flight, close, exit 0.

uvicorn alone refuses new connections at the signal, while proxies still send them: Kubernetes tells both at once.
Waiting inside the process needs no preStop hook and no shell in the image.
"""

import signal
import time
from dataclasses import dataclass
from types import FrameType

import structlog
import uvicorn

log = structlog.get_logger()


@dataclass
class Lifecycle:
    """What the middleware and the readiness probe need to know about the end of the process."""

    draining: bool = False


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, delay: float) -> None:
        super().__init__(config)
        self.lifecycle = lifecycle
        self.delay = delay
        self._exit_at: float | None = None

    def drain(self, delay: float | None = None) -> None:
        """Readiness off now, stop accepting after the delay."""
        self.lifecycle.draining = True
        self._exit_at = time.monotonic() + (self.delay if delay is None else delay)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The signal is not remembered as uvicorn does it, to raise it again at the end: a drained process ends with 0.
        if self._exit_at is not None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        # Ctrl-C comes from a developer who does not want to wait for proxies.
        self.drain(0 if sig == signal.SIGINT else None)

    async def on_tick(self, counter: int) -> bool:
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)
