"""/health/live says that the process answers, /health/ready that it wants traffic, /health how its dependencies are."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from slipway_kit.lifecycle import Lifecycle

# Below the probes' own timeout, so that an answer with the reason leaves before they give up.
CHECK_TIMEOUT = 2.0
# Many probes at once ask the dependencies once.
CACHE_SECONDS = 1.0

Probe = Callable[[], Awaitable[None]]
log = structlog.get_logger()


@dataclass(frozen=True)
class Check:
    """A dependency. Without a critical one the service cannot work at all: it is then not ready."""

    name: str
    probe: Probe
    critical: bool = False


class Health:
    def __init__(self, service: str, version: str, lifecycle: Lifecycle) -> None:
        self.service = service
        self.version = version
        self.lifecycle = lifecycle
        self.checks: list[Check] = []
        self._results: dict[str, tuple[float, dict[str, Any]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def add(self, name: str, probe: Probe, *, critical: bool = False) -> None:
        self.checks.append(Check(name, probe, critical))
        self._locks[name] = asyncio.Lock()

    async def _run(self, check: Check) -> dict[str, Any]:
        async with self._locks[check.name]:
            at, result = self._results.get(check.name, (0.0, {}))
            if result and time.monotonic() - at < CACHE_SECONDS:
                return result
            started = time.perf_counter()
            try:
                async with asyncio.timeout(CHECK_TIMEOUT):
                    await check.probe()
                result = {"status": "ok", "latency_ms": round((time.perf_counter() - started) * 1000, 1)}
            except Exception as error:
                # The class only: a message may hold addresses and names.
                result = {"status": "down", "error": type(error).__name__}
                log.warning("dependency is down", dependency=check.name, error=str(error) or type(error).__name__)
            self._results[check.name] = (time.monotonic(), result)
            return result

    async def report(self, *, critical_only: bool = False) -> tuple[Literal["ok", "degraded", "down"], dict[str, Any]]:
        checks = [check for check in self.checks if check.critical or not critical_only]
        results = await asyncio.gather(*(self._run(check) for check in checks))
        down = [check for check, result in zip(checks, results, strict=True) if result["status"] != "ok"]
        status: Literal["ok", "degraded", "down"] = "ok"
        if down:
            status = "down" if any(check.critical for check in down) else "degraded"
        return status, {check.name: result for check, result in zip(checks, results, strict=True)}

    async def ready(self) -> Response:
        """Answers /health/ready; a service may offer it under another name too."""
        if self.lifecycle.draining:
            return _answer({"status": "draining"}, ok=False)
        status, checks = await self.report(critical_only=True)
        return _answer({"status": status, "checks": checks}, ok=status != "down")

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)

        @router.get("/health/live")
        async def live() -> Response:
            return JSONResponse({"status": "ok"})

        router.add_api_route("/health/ready", self.ready)

        @router.get("/health")
        async def health() -> Response:
            status, checks = await self.report()
            body = {
                "status": status,
                "service": self.service,
                "version": self.version,
                "draining": self.lifecycle.draining,
                "checks": checks,
            }
            return _answer(body, ok=status != "down")

        return router


def _answer(body: dict[str, Any], *, ok: bool) -> Response:
    return JSONResponse(body) if ok else JSONResponse(body, 503, headers={"Retry-After": "5"})
