"""Conditional reads (RFC 9110, 13): whoever still has what is there gets 304 and no body."""

import re

from fastapi import Request, Response

from slipway_api.cache import Rendered

# Entity tags are quoted; a weak one is equal to the strong one here (weak comparison, 8.8.3.2).
_ETAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
# Anybody may keep it, nobody may show it again without asking.
CACHE_CONTROL = "no-cache"


def answer(request: Request, rendered: Rendered) -> Response:
    """200 with the body, or 304 when If-None-Match names it."""
    tag = rendered.digest.hex()
    headers = {"ETag": f'"{tag}"', "Cache-Control": CACHE_CONTROL}
    asked = request.headers.get("if-none-match")
    if asked is not None and (asked.strip() == "*" or tag in _ETAG.findall(asked)):
        return Response(status_code=304, headers=headers)
    return Response(rendered.body, media_type="application/json", headers=headers)
