"""Secret files that may change while the process runs: parsed at the start, and again when their text is another."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter

T = TypeVar("T")
log = structlog.get_logger()


class ReloadMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.failures = Counter(
            "auth_reload_failures_total", "Changed secret files that could not be used.", ["file"], registry=registry
        )


class SecretFiles(Generic[T]):
    """One value made of one or more files. `read` gives the present text of a file, `parse` raises ValueError."""

    def __init__(
        self, names: tuple[str, ...], read: Callable[[str], str], parse: Callable[..., T], metrics: ReloadMetrics
    ) -> None:
        self.name = " and ".join(names)
        self._names = names
        self._read = read
        self._parse = parse
        self._failures = metrics.failures.labels(self.name)
        self._texts = self._now()
        self.value: T = parse(*self._texts)

    def reload(self) -> bool:
        """Whether there is a new value. A file that cannot be used is told once, and the last good value stays."""
        texts = self._now()
        if texts == self._texts:
            return False
        self._texts = texts
        try:
            self.value = self._parse(*texts)
        except ValueError as error:
            # Our own words: what we wanted. They never quote the file.
            self._failures.inc()
            log.error("secret file not usable, the last good one stays in force", file=self.name, wanted=str(error))
            return False
        log.info("secret file read again", audit=True, file=self.name)
        return True

    def _now(self) -> tuple[str, ...]:
        return tuple(self._read(name) for name in self._names)


class Reloadable(Protocol):
    def reload(self) -> bool: ...


async def watch(files: tuple[Reloadable, ...], interval: float) -> None:
    """For ever. Asking for the text beats waiting for events: mounted secrets are replaced by links, and are small."""
    while True:
        await asyncio.sleep(interval)
        for file in files:
            file.reload()
