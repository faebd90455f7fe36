"""Filter `ingress_image_refusal`: why this image of ingress-nginx may not run, in one line; nothing if it may.

Preflight judges by the same rule. Here it stands once more for whoever runs the role by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from preflight.images import refusal


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"ingress_image_refusal": ingress_image_refusal}


def ingress_image_refusal(image: str, accepted: str) -> str:
    """`accepted` is the image that the user runs although nobody patches it."""
    found = refusal(image, accepted)
    return f"found {found[0]}, wanted {found[1]}" if found else ""
