"""auth without its rate limits: for tests that are about something else and ask often from one address."""

from typing import Any

from slipway_auth.settings import Settings

UNLIMITED: dict[str, Any] = {name: "" for name in Settings.model_fields if name.startswith("limit_")}
