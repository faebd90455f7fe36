"""What comes out of the image service."""

from datetime import datetime

from pydantic import BaseModel, Field


class Image(BaseModel):
    filename: str = Field(examples=["0123456789abcdef0123456789abcdef.jpg"])
    url: str = Field(description="Where its owner can read it.")
    sha256: str
    size: int = Field(description="Bytes.")
    width: int
    height: int
    content_type: str
    created_at: datetime


class ImagePage(BaseModel):
    items: list[Image]
    next_cursor: str | None = Field(description="Pass it as `cursor` to read on; null on the last page.")


class TypeStats(BaseModel):
    images: int
    bytes: int


class Stats(BaseModel):
    """Of the caller's own images."""

    images: int
    bytes: int
    by_type: dict[str, TypeStats]
