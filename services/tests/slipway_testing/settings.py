"""Settings of a service that is none in particular."""

from typing import Any, TypeVar

from slipway_kit.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def settings_of(cls: type[S], **values: Any) -> S:
    """With what every service has to be told; `values` come from a test."""
    given: dict[str, Any] = {"port": 1, "public_url": "https://slipway.test"} | values
    return cls(**given)
