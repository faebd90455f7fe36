"""Which image of ingress-nginx may run: what upstream has published may not, unless it is accepted by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))
sys.path.insert(0, str(ROOT / "plugins" / "filter"))

from preflight.images import LAST, refusal  # noqa: E402

ingress_image_refusal: Any = importlib.import_module("ingress_image").ingress_image_refusal

DIGEST = f"@sha256:{64 * '0'}"
OURS = f"registry.mycompany.com:5000/ingress-nginx/controller{DIGEST}"
UPSTREAM = [
    f"registry.k8s.io/ingress-nginx/controller:v1.15.1{DIGEST}",
    f"registry.k8s.io/ingress-nginx/controller-chroot{DIGEST}",
    f"k8s.gcr.io/ingress-nginx/controller:v1.0.0{DIGEST}",
    f"us.gcr.io/k8s-artifacts-prod/ingress-nginx/controller{DIGEST}",
    f"quay.io/kubernetes-ingress-controller/nginx-ingress-controller{DIGEST}",
    *(f"registry.mycompany.com/mirror/any@{digest}" for digest in LAST),
]


@pytest.mark.parametrize("image", [OURS, f"registry.mycompany.com/registry.k8s.io/ingress-nginx/controller{DIGEST}"])
def test_a_build_of_somebody_else_may_run(image: str) -> None:
    assert refusal(image, "") is None
    assert ingress_image_refusal(image, "") == ""


@pytest.mark.parametrize("image", UPSTREAM)
def test_upstreams_own_may_not_unless_it_is_accepted_letter_by_letter(image: str) -> None:
    found = refusal(image, "")
    assert found and image in found[0]
    assert "upstream" in found[0]
    assert refusal(image, image) is None
    assert refusal(image, image[:-1]) is not None
    assert "accepts another one" in ingress_image_refusal(image, OURS)
    assert "\n" not in ingress_image_refusal(image, OURS)


@pytest.mark.parametrize(
    "image", ["", "registry.mycompany.com/controller:v1", f"registry.mycompany.com/c{DIGEST[:-1]}"]
)
def test_one_without_a_digest_may_not(image: str) -> None:
    assert refusal(image, image) is not None
