"""Which image of ingress-nginx may run: upstream has ended, and what it published gets no fixes."""

from __future__ import annotations

import re

# Where upstream published, over the years.
UPSTREAM = re.compile(
    r"^(registry\.k8s\.io|k8s\.gcr\.io|(us|eu|asia)\.gcr\.io/k8s-artifacts-prod)/ingress-nginx/"
    r"|^quay\.io/kubernetes-ingress-controller/"
)
# Its last images (release 1.15.1, as upstream's chart names them), whatever they are called elsewhere.
LAST = {
    "sha256:594ceea76b01c592858f803f9ff4d2cb40542cae2060410b2c95f75907d659e1": "controller",
    "sha256:af31d00c9d82c612896b380a9003bd36843b7647b98e4588251c66325317bc72": "controller-chroot",
}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
WANTED = "a build that somebody maintains, with its digest (docs/runbooks/ingress-controller.md names some)"


def refusal(image: str, accepted: str) -> tuple[str, str] | None:
    """Return what was found and what is wanted when this image may not run, and None when it may.

    `accepted` is what the user runs although nobody patches it: the image itself, letter by letter.
    """
    if not image:
        return "nothing, and there is no default", WANTED
    upstream = UPSTREAM.search(image) or image.partition("@")[2] in LAST
    if upstream and image != accepted:
        other = f" (ingress_nginx_accept_unpatched accepts another one, {accepted})" if accepted else ""
        return f"{image}, which is upstream's own and gets no fixes any more{other}", WANTED
    if not DIGEST.search(image):
        return f"{image} without a digest", "an image that nobody can exchange: name@sha256:..."
    return None
