"""The page of the living lab, as its users have it: through the ingress, with every service behind it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cluster_access import Cluster

from tests.web.support.browser import Watch, profile, running_browser, watched
from tests.web.support.journey import walk

ROOT = Path(__file__).resolve().parents[2]


def test_from_sign_up_to_the_thumbnail(cluster: Cluster, tmp_path: Path) -> None:
    ingress = cluster.get("/apis/networking.k8s.io/v1/namespaces/web/ingresses/web")
    host = str(ingress["spec"]["rules"][0]["host"])
    nodes = cluster.items("/api/v1/nodes", labelSelector="!node-role.kubernetes.io/control-plane")
    addresses = nodes[0]["status"]["addresses"]
    address = next(str(entry["address"]) for entry in addresses if entry["type"] == "InternalIP")
    # Brings axe.
    subprocess.run([ROOT / "scripts" / "web", "types"], cwd=ROOT, check=True)
    watch = Watch()
    with running_browser(host, address) as browser, profile(browser) as context, watched(context, watch) as page:
        walk(page, f"https://{host}", tmp_path)
    watch.verify()
