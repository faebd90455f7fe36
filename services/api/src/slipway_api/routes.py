"""Which public route leads where. Only what stands here is reachable: no /metrics and no /health of others."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from slipway_kit.problems import problems
from slipway_kit.tokens import current_user

from slipway_api.relay import Relay

# 408: the request did not arrive in time; 502, 503, 504: no answer, or not now.
UPSTREAM = (400, 408, 413, 502, 503, 504)
READ = problems(*UPSTREAM, 401, 404)

# Answers come from the service behind, which describes them; here they are only passed on.
auth = APIRouter(prefix="/api/v1/auth", tags=["auth"], default_response_class=Response)
# Checked here too, although image checks as well: ten megabytes of nobody's need not travel further.
images = APIRouter(
    prefix="/api/v1/images", tags=["images"], default_response_class=Response, dependencies=[Depends(current_user)]
)

# Names that the image service gives. Everything else never existed, and no path of another shape gets through.
Filename = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}\.[a-z]{3,4}$", examples=["0123456789abcdef0123456789abcdef.jpg"])
]
# The longer side of a thumbnail, in pixels.
Size = Literal["160", "480", "1200"]
CONDITIONAL: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified"}}
BYTES: dict[int | str, dict[str, Any]] = CONDITIONAL | {206: {"description": "Partial Content"}}


async def _auth(request: Request) -> Relay:
    relay: Relay = request.state.auth
    return relay


async def _image(request: Request) -> Relay:
    relay: Relay = request.state.image
    return relay


Auth = Annotated[Relay, Depends(_auth)]
Image = Annotated[Relay, Depends(_image)]


@auth.post("/register", status_code=201, responses=problems(*UPSTREAM, 409, 429))
async def register(request: Request, relay: Auth) -> Response:
    return await relay.forward(request, "/register")


@auth.post("/login", responses=problems(*UPSTREAM, 401, 429))
async def login(request: Request, relay: Auth) -> Response:
    return await relay.forward(request, "/login")


@auth.post("/refresh", responses=problems(*UPSTREAM, 401, 429))
async def refresh(request: Request, relay: Auth) -> Response:
    """With the refresh token in the body, or in the cookie that signing in has set."""
    return await relay.forward(request, "/refresh")


@auth.post("/logout", status_code=204, responses=problems(*UPSTREAM, 401, 429))
async def logout(request: Request, relay: Auth) -> Response:
    return await relay.forward(request, "/logout")


@auth.post("/password", status_code=204, responses=problems(*UPSTREAM, 401, 429))
async def change_password(request: Request, relay: Auth) -> Response:
    return await relay.forward(request, "/password")


@auth.post("/verify", responses=problems(*UPSTREAM, 429))
async def verify(request: Request, relay: Auth) -> Response:
    return await relay.forward(request, "/verify")


@auth.head("/.well-known/jwks.json", include_in_schema=False)
@auth.get("/.well-known/jwks.json", responses=problems(*UPSTREAM))
async def jwks(request: Request, relay: Auth) -> Response:
    return await relay.forward(request, "/.well-known/jwks.json")


@images.post("", status_code=201, responses=problems(*UPSTREAM, 401, 403, 415))
async def upload(request: Request, relay: Image) -> Response:
    """`multipart/form-data` with the image in the field `file`."""
    return await relay.forward(request, "/upload", upload=True)


@images.head("", include_in_schema=False)
@images.get("", responses=problems(*UPSTREAM, 401))
async def list_images(request: Request, relay: Image) -> Response:
    return await relay.forward(request, "/images")


@images.head("/stats", include_in_schema=False)
@images.get("/stats", responses=problems(*UPSTREAM, 401))
async def stats(request: Request, relay: Image) -> Response:
    return await relay.forward(request, "/stats")


@images.head("/{filename}", include_in_schema=False)
@images.get("/{filename}", responses=READ | problems(416) | BYTES)
async def download(filename: Filename, request: Request, relay: Image) -> Response:
    return await relay.forward(request, f"/images/{filename}")


@images.head("/{filename}/metadata", include_in_schema=False)
@images.get("/{filename}/metadata", responses=READ | CONDITIONAL)
async def metadata(filename: Filename, request: Request, relay: Image) -> Response:
    return await relay.forward(request, f"/images/{filename}/metadata")


@images.head("/{filename}/{size}", include_in_schema=False)
@images.get("/{filename}/{size}", responses=READ | problems(416) | BYTES)
async def thumbnail(filename: Filename, size: Size, request: Request, relay: Image) -> Response:
    return await relay.forward(request, f"/images/{filename}/{size}")


@images.delete("/{filename}", status_code=204, responses=READ)
async def delete(filename: Filename, request: Request, relay: Image) -> Response:
    return await relay.forward(request, f"/images/{filename}")
