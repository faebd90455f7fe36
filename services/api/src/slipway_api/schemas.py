"""What goes in and what comes out of the posts API."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("NUL characters cannot be stored")
    return value


Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_no_nul)]
Content = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000), AfterValidator(_no_nul)
]


class NewPost(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Title = Field(examples=["Hello"])
    content: Content = Field(examples=["The first post."])


class Author(BaseModel):
    id: UUID
    username: str


class Post(BaseModel):
    id: UUID
    title: str
    content: str
    author: Author
    created_at: datetime


class PostPage(BaseModel):
    items: list[Post]
    next_cursor: str | None = Field(description="Pass it as `cursor` to read on; null on the last page.")
