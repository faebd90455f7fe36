"""HTTP of posts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from slipway_kit.pagination import DEFAULT_LIMIT, MAX_LIMIT
from slipway_kit.problems import problems
from slipway_kit.tokens import CurrentUser

from slipway_api.schemas import NewPost, Post, PostPage
from slipway_api.service import PostService

PREFIX = "/api/v1/posts"

router = APIRouter(prefix=PREFIX, tags=["posts"])


async def _posts(request: Request) -> PostService:
    service: PostService = request.state.posts
    return service


Posts = Annotated[PostService, Depends(_posts)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items per page.")]
CursorText = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")]


@router.get("", responses=problems(503))
async def list_posts(posts: Posts, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None) -> PostPage:
    """All posts, newest first. Public."""
    return await posts.newest(cursor, limit)


@router.post("", status_code=201, responses=problems(400, 401, 413, 503))
async def create_post(user: CurrentUser, body: NewPost, posts: Posts, response: Response) -> Post:
    post = await posts.create(user, body)
    response.headers["Location"] = f"{PREFIX}/{post.id}"
    return post


@router.get("/my", responses=problems(401, 503))
async def list_my_posts(
    user: CurrentUser, posts: Posts, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> PostPage:
    return await posts.of_author(user, cursor, limit)


@router.delete("/{post_id}", status_code=204, responses=problems(401, 403, 404, 503))
async def delete_post(user: CurrentUser, post_id: UUID, posts: Posts) -> None:
    await posts.delete(user, post_id)
