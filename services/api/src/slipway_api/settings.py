"""Settings of api."""

from pydantic import AnyHttpUrl, Field
from slipway_kit.settings import DatabaseSettings, Port, RedisSettings, Seconds, ServiceTokenSettings, TokenSettings


class Settings(DatabaseSettings, RedisSettings, TokenSettings, ServiceTokenSettings):
    port: Port = Field(3002, description="a port between 1 and 65535", examples=["3002"])
    auth_url: AnyHttpUrl = Field(description="the URL of auth", examples=["http://auth.auth.svc:3001"])
    image_url: AnyHttpUrl = Field(description="the URL of image", examples=["http://image.image-storage.svc:3003"])
    # How long somebody may see what is old when Redis was away at the moment of a change; otherwise nobody does.
    cache_seconds: Seconds = Field(10, description="seconds, above 0, at most 600", examples=["10"])
    relay_connect_timeout: Seconds = Field(2, description="seconds, above 0, at most 600", examples=["2"])
    # From the end of the request to the first byte of the answer, and between any two pieces of it.
    relay_read_timeout: Seconds = Field(15, description="seconds, above 0, at most 600", examples=["15"])
    # From the start of the request to the head of the answer.
    relay_head_timeout: Seconds = Field(20, description="seconds, above 0, at most 600", examples=["20"])
    # 10 MB over a phone line take a while, and the image service ends uploads that are slower by itself.
    relay_upload_timeout: Seconds = Field(150, description="seconds, above 0, at most 600", examples=["150"])
    # For a client to take a piece (64 KiB) of an answer.
    relay_stall_timeout: Seconds = Field(30, description="seconds, above 0, at most 600", examples=["30"])
    relay_connections: int = Field(
        200, ge=4, le=5000, description="connections per upstream, 4 to 5000", examples=["200"]
    )
    breaker_failures: int = Field(
        5, ge=1, le=1000, description="calls in a row without an answer, 1 to 1000", examples=["5"]
    )
    breaker_open_seconds: Seconds = Field(5, description="seconds, above 0, at most 600", examples=["5"])
