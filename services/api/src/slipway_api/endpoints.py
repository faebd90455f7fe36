"""HTTP of posts."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from slipway_kit.pagination import DEFAULT_LIMIT, MAX_LIMIT
from slipway_kit.problems import problems
from slipway_kit.tokens import CurrentUser

from slipway_api import conditional
from slipway_api.schemas import NewPost, Post, PostPage
from slipway_api.service import PostService

PREFIX = "/api/v1/posts"
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified"}}

router = APIRouter(prefix=PREFIX, tags=["posts"])


async def _posts(request: Request) -> PostService:
    service: PostService = request.state.posts
    return service


Posts = Annotated[PostService, Depends(_posts)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items per page.")]
CursorText = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Chosen by the client, one for each post. A repeated request within 24 hours creates nothing and "
        "gets the same answer with `Idempotency-Replayed: true`.",
    ),
]


@router.head("", include_in_schema=False)
@router.get("", response_model=PostPage, responses=problems(503) | NOT_MODIFIED)
async def list_posts(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> Response:
    """All posts, newest first. Public."""
    # Called and not depended on: a dependency costs as much as all parameters together, and this is the hot path.
    posts = await _posts(request)
    return conditional.answer(request, await posts.newest(cursor, limit))


@router.post("", status_code=201, responses=problems(400, 401, 413, 503))
async def create_post(
    user: CurrentUser, body: NewPost, posts: Posts, response: Response, key: IdempotencyKey = None
) -> Post:
    post, replayed = await posts.create(user, body, key)
    response.headers["Location"] = f"{PREFIX}/{post.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return post


@router.get("/my", responses=problems(401, 503))
async def list_my_posts(
    user: CurrentUser, posts: Posts, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> PostPage:
    return await posts.of_author(user, cursor, limit)


@router.head("/{post_id}", include_in_schema=False)
@router.get("/{post_id}", response_model=Post, responses=problems(404, 503) | NOT_MODIFIED)
async def read_post(request: Request, post_id: UUID, posts: Posts) -> Response:
    """One post. Public."""
    return conditional.answer(request, await posts.one(post_id))


@router.delete("/{post_id}", status_code=204, responses=problems(401, 403, 404, 503))
async def delete_post(user: CurrentUser, post_id: UUID, posts: Posts) -> None:
    await posts.delete(user, post_id)
