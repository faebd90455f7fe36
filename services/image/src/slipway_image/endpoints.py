"""HTTP of image."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from slipway_kit.pagination import DEFAULT_LIMIT, MAX_LIMIT
from slipway_kit.problems import Problem, problems
from slipway_kit.tokens import CurrentUser
from starlette.types import Receive, Scope, Send

from slipway_image.repository import StoredImage
from slipway_image.schemas import Image, ImagePage, Stats
from slipway_image.service import ImageService
from slipway_image.storage import BlobNotFoundError
from slipway_image.uploads import FIELD, Receiver

router = APIRouter(tags=["images"])
log = structlog.get_logger()


async def _images(request: Request) -> ImageService:
    service: ImageService = request.state.images
    return service


async def _receiver(request: Request) -> Receiver:
    receiver: Receiver = request.state.receiver
    return receiver


Images = Annotated[ImageService, Depends(_images)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items per page.")]
CursorText = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")]
Filename = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}\.[a-z]{3,4}$", examples=["0123456789abcdef0123456789abcdef.jpg"])
]

_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("/upload", status_code=201, responses=problems(400, 401, 408, 413, 415, 503), openapi_extra=_UPLOAD_BODY)
async def upload(
    user: CurrentUser,
    request: Request,
    images: Images,
    receiver: Annotated[Receiver, Depends(_receiver)],
    response: Response,
) -> Image:
    """JPEG, PNG, GIF, WebP or AVIF; the bytes are kept exactly as they came."""
    async with receiver.receive(request) as received:
        image = await images.store(user, received)
    response.headers["Location"] = image.url
    return image


@router.get("/images", responses=problems(401, 503))
async def list_images(
    user: CurrentUser, images: Images, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> ImagePage:
    """The caller's own, newest first."""
    return await images.list(user, cursor, limit)


@router.get("/stats", responses=problems(401, 503))
async def stats(user: CurrentUser, images: Images) -> Stats:
    return await images.stats(user)


@router.get(
    "/images/{filename}",
    response_class=Response,
    responses={
        **problems(401, 404, 503),
        200: {"content": {"image/*": {}}},
        304: {"description": "The client has it already."},
    },
)
async def download(filename: Filename, user: CurrentUser, request: Request, images: Images) -> Response:
    """The original bytes, for their owner."""
    image = await images.find(user, filename)
    etag = f'"{image.sha256}"'
    headers = {
        "ETag": etag,
        # The bytes under a name never change; private, because a shared cache does not know the owner.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'inline; filename="{image.filename}"',
        # Should a browser ever take it for a document: no scripts, no plugins, nothing loaded.
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
        return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(image.size)
    return _Download(images, image, headers)


@router.delete("/images/{filename}", status_code=204, responses=problems(401, 404, 503))
async def delete(filename: Filename, user: CurrentUser, images: Images) -> None:
    await images.delete(user, filename)


class _Download(Response):
    """Piece by piece from the object store to the client; errors before the first piece are still proper answers."""

    def __init__(self, images: ImageService, image: StoredImage, headers: dict[str, str]) -> None:
        self._images = images
        self._image = image
        self.status_code = 200
        self.background = None
        self.body = b""
        self.media_type = image.content_type
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with self._images.read(self._image) as chunks:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                started = True
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except BlobNotFoundError:
            log.error("row without its object", filename=self._image.filename, key=self._image.object_key)
            raise Problem(500, "image-lost", "The image is registered, but its bytes are missing.") from None
        except Problem:
            # Once the head is out, only a body that stays incomplete tells the client.
            if not started:
                raise
