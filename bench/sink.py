"""A place for traces to go to: takes every export, keeps none, counts. `python -m bench.sink PORT`"""

import sys

from aiohttp import web

# An export of the usual 512 spans has some 200 KiB.
MAX_BYTES = 16 * 1024**2
_exports = web.AppKey("exports", list[int])


async def take(request: web.Request) -> web.Response:
    request.app[_exports].append(len(await request.read()))
    # An empty ExportTraceServiceResponse: everything was accepted.
    return web.Response(body=b"", content_type="application/x-protobuf")


async def count(request: web.Request) -> web.Response:
    exports = request.app[_exports]
    return web.json_response({"exports": len(exports), "bytes": sum(exports)})


def application() -> web.Application:
    app = web.Application(client_max_size=MAX_BYTES)
    app[_exports] = []
    app.router.add_post("/v1/traces", take)
    app.router.add_get("/count", count)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
