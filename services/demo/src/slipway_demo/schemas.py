"""What demo answers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class Link(BaseModel):
    path: str
    purpose: str


class Index(BaseModel):
    service: str
    version: str
    links: list[Link]


class Item(BaseModel):
    id: int
    name: str
    value: float = Field(description="Between -1 and 1; the same for the same id, always.")


class Data(BaseModel):
    items: list[Item]
    count: int


class Status(BaseModel):
    status: Literal["ok", "draining"]
    service: str
    version: str
    started_at: datetime
    uptime_seconds: float
    failures_caused: int = Field(description="By /api/flaky, since the start of this process.")
    slow_in_progress: int


class Flaky(BaseModel):
    failed: Literal[False] = False
    failure_rate: float


class Slow(BaseModel):
    delay_ms: int
    waited_ms: float = Field(description="What it really was: the event loop may be late.")
