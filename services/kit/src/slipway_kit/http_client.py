"""Calls to other services. aiohttp costs a fifth of the CPU of httpx, and every hop pays it."""

import aiohttp


def new_session(*, total: float, connect: float = 2, limit: int = 100) -> aiohttp.ClientSession:
    """No call without a deadline, no cookies, no redirects followed by surprise, no body decoded on the way."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=total, connect=connect, sock_connect=connect),
        # Shorter than the servers keep connections, so that a call does not meet one that is just being closed.
        connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
    )


async def probe(session: aiohttp.ClientSession, url: str) -> None:
    """A health check of another service: its liveness, so that checks do not chain through the platform."""
    async with session.get(url, allow_redirects=False) as response:
        response.raise_for_status()
