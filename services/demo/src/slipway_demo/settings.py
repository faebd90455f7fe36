"""Settings of demo."""

from pydantic import Field
from slipway_kit.settings import Port, ServiceSettings


class Settings(ServiceSettings):
    port: Port = Field(8080, description="a port between 1 and 65535", examples=["8080"])
    # Each holds a connection and some KiB for up to ten seconds: without a bound a few clients could fill the memory.
    slow_max: int = Field(200, ge=1, le=5000, description="slow requests at a time, 1 to 5000", examples=["200"])
