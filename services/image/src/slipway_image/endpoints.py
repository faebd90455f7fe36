"""HTTP of image."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from slipway_kit.pagination import DEFAULT_LIMIT, MAX_LIMIT
from slipway_kit.problems import problems
from slipway_kit.service_tokens import calling_service
from slipway_kit.tokens import CurrentUser

from slipway_image.downloads import answer
from slipway_image.metrics import ImageMetrics
from slipway_image.schemas import NAME, Image, ImageMetadata, ImagePage, Stats
from slipway_image.service import Content, ImageService
from slipway_image.uploads import FIELD, Receiver

# Only declared services call this one, each with a token of its own beside that of the user.
router = APIRouter(tags=["images"], dependencies=[Depends(calling_service)])


async def _images(request: Request) -> ImageService:
    service: ImageService = request.state.images
    return service


async def _receiver(request: Request) -> Receiver:
    receiver: Receiver = request.state.receiver
    return receiver


async def _metrics(request: Request) -> ImageMetrics:
    metrics: ImageMetrics = request.state.metrics
    return metrics


Images = Annotated[ImageService, Depends(_images)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items per page.")]
CursorText = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")]
Filename = Annotated[str, Path(pattern=r"^[0-9a-f]{32}\.[a-z]{3,4}$", examples=[NAME])]
Thumbnail = Annotated[Literal["160", "480", "1200"], Path(description="The longer side, in pixels.")]

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
_BYTES: dict[int | str, dict[str, Any]] = {
    **problems(401, 404, 416, 503),
    200: {"content": {"image/*": {}}, "description": "All of it."},
    206: {"content": {"image/*": {}}, "description": "The part that `Range` asks for."},
    304: {"description": "The client has it already."},
}


@router.get("/images/{filename}/metadata", responses=problems(401, 404, 503))
async def metadata(filename: Filename, user: CurrentUser, images: Images) -> ImageMetadata:
    return await images.metadata(user, filename)


@router.post(
    "/upload", status_code=201, responses=problems(400, 401, 403, 408, 413, 415, 503), openapi_extra=_UPLOAD_BODY
)
async def upload(
    user: CurrentUser,
    request: Request,
    images: Images,
    receiver: Annotated[Receiver, Depends(_receiver)],
    metrics: Annotated[ImageMetrics, Depends(_metrics)],
    response: Response,
) -> Image:
    """JPEG, PNG, GIF, WebP or AVIF; the bytes are kept exactly as they came, equal ones once."""
    with metrics.upload() as result:
        await images.check_quota(user)
        async with receiver.receive(request) as received:
            image = await images.store(user, received, result)
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


@router.head("/images/{filename}", include_in_schema=False)
@router.get("/images/{filename}", response_class=Response, responses=_BYTES)
async def download(filename: Filename, user: CurrentUser, request: Request, images: Images) -> Response:
    """The original bytes for their owner; a variant without metadata for everybody else who is signed in."""
    return _answer(request, images, await images.content(user, filename))


@router.head("/images/{filename}/{size}", include_in_schema=False)
@router.get("/images/{filename}/{size}", response_class=Response, responses=_BYTES)
async def thumbnail(
    filename: Filename, size: Thumbnail, user: CurrentUser, request: Request, images: Images
) -> Response:
    """Made when it is first asked for; JPEG, or WebP where there is transparency."""
    return _answer(request, images, await images.content(user, filename, size))


@router.delete("/images/{filename}", status_code=204, responses=problems(401, 404, 503))
async def delete(filename: Filename, user: CurrentUser, images: Images) -> None:
    """For its owner; to everybody else it is not there."""
    await images.delete(user, filename)


def _answer(request: Request, images: ImageService, content: Content) -> Response:
    return answer(
        request,
        sha256=content.bytes.sha256,
        size=content.bytes.size,
        content_type=content.bytes.content_type,
        filename=content.filename,
        read=lambda offset, length: images.read(content, offset, length),
    )
