"""What comes out of the image service."""

from datetime import datetime

from pydantic import BaseModel, Field

NAME = "0123456789abcdef0123456789abcdef.jpg"


class Image(BaseModel):
    filename: str = Field(examples=[NAME])
    url: str = Field(description="The original for its owner, a variant without metadata for all others.")
    sha256: str = Field(description="Of the original.")
    size: int = Field(description="Bytes of the original.")
    width: int = Field(description="Pixels, as a viewer shows the picture.")
    height: int
    content_type: str = Field(description="Of the original.")
    created_at: datetime
    thumbnails: dict[str, str] = Field(
        description="URLs by the longer side in pixels.",
        examples=[{"160": f"https://slipway.test/api/v1/images/{NAME}/160"}],
    )


class ImageMetadata(BaseModel):
    """Of any image. What identifies the original's bytes is for its owner alone."""

    filename: str = Field(examples=[NAME])
    url: str
    owned: bool = Field(description="Whether it is the caller's.")
    sha256: str | None = Field(description="Of the original; null for others than its owner.")
    size: int | None = Field(description="Bytes of the original; null for others than its owner.")
    width: int
    height: int
    content_type: str
    created_at: datetime
    thumbnails: dict[str, str]


class ImagePage(BaseModel):
    items: list[Image]
    next_cursor: str | None = Field(description="Pass it as `cursor` to read on; null on the last page.")


class TypeStats(BaseModel):
    images: int
    bytes: int


class Quota(BaseModel):
    images: int = Field(description="Images that the caller may keep.")
    bytes: int = Field(description="Bytes that the caller may keep.")


class Timing(BaseModel):
    count: int
    average_ms: float = Field(description="0 where there is nothing to average.")
    max_ms: int


class Processing(BaseModel):
    uploads: Timing = Field(description="Checking and storing, without the way of the bytes to here.")
    variants: Timing = Field(description="Reading, decoding, scaling, encoding and storing.")


class Stats(BaseModel):
    """Of the caller's own images."""

    images: int
    bytes: int
    by_type: dict[str, TypeStats]
    quota: Quota
    processing: Processing
