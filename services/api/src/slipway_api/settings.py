"""Settings of api."""

from pydantic import AnyHttpUrl, Field
from slipway_kit.settings import DatabaseSettings, Port, Seconds, TokenSettings


class Settings(DatabaseSettings, TokenSettings):
    port: Port = Field(3002, description="a port between 1 and 65535", examples=["3002"])
    auth_url: AnyHttpUrl = Field(description="the URL of auth", examples=["http://auth.auth.svc:3001"])
    image_url: AnyHttpUrl = Field(description="the URL of image", examples=["http://image.image-storage.svc:3003"])
    relay_connect_timeout: Seconds = Field(2, description="seconds, above 0, at most 600", examples=["2"])
    # From the end of the request to the first byte of the answer, and between any two pieces of it.
    relay_read_timeout: Seconds = Field(15, description="seconds, above 0, at most 600", examples=["15"])
    # From the start of the request to the head of the answer.
    relay_head_timeout: Seconds = Field(20, description="seconds, above 0, at most 600", examples=["20"])
    # 10 MB over a phone line take a while, and the image service ends uploads that are slower by itself.
    relay_upload_timeout: Seconds = Field(150, description="seconds, above 0, at most 600", examples=["150"])
    relay_connections: int = Field(
        200, ge=1, le=5000, description="connections per upstream, 1 to 5000", examples=["200"]
    )
