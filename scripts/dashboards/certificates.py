"""Certificates and who makes them."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    CERTIFICATE_LEFT,
    COUNT,
    DURATION,
    FIRST_CERTIFICATE_ENDS,
    GREEN,
    HALF,
    NONE_IS_WELL,
    PER_SECOND,
    RED,
    Colours,
    Query,
    Row,
    board,
    graph,
    listing,
    number,
)

NAMED = "exported_namespace, name"


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "certificates",
        "Certificates",
        "How long certificates last, when they are renewed, and whether cert-manager can.",
        [
            Row(
                "Now",
                [
                    number(
                        "Until the first one ends",
                        DURATION,
                        FIRST_CERTIFICATE_ENDS,
                        colours=CERTIFICATE_LEFT,
                        width=8,
                    ),
                    number(
                        "Not ready",
                        COUNT,
                        """count(certmanager_certificate_ready_status{condition="True"} == 0) or vector(0)""",
                        colours=NONE_IS_WELL,
                        width=8,
                    ),
                    number(
                        "Parts of cert-manager that answer",
                        COUNT,
                        'count(up{job=~"cert-manager.*"} == 1) or vector(0)',
                        description="Controller, cainjector and webhook.",
                        colours=Colours(RED, [(3, GREEN)]),
                        width=8,
                    ),
                ],
            ),
            Row(
                "Certificates",
                [
                    listing(
                        "Left of each",
                        DURATION,
                        f"min by ({NAMED}) (certmanager_certificate_expiration_timestamp_seconds) - time()",
                        value="left",
                    ),
                    listing(
                        "Until it is renewed",
                        DURATION,
                        f"min by ({NAMED}) (certmanager_certificate_renewal_timestamp_seconds) - time()",
                        description="Below zero: it should have been.",
                        value="until",
                    ),
                    graph(
                        "Left of what the ingress presents",
                        DURATION,
                        Query("min by (cn) (traefik_tls_certs_not_after) - time()", "{{cn}}"),
                        description="Of Traefik; ingress-nginx has another name for it.",
                        width=HALF,
                    ),
                    graph(
                        "Ready",
                        COUNT,
                        Query(
                            f"""min by ({NAMED}) (certmanager_certificate_ready_status{{condition="True"}})""",
                            "{{exported_namespace}}/{{name}}",
                        ),
                        description="1: yes.",
                        most=1,
                        width=HALF,
                    ),
                ],
            ),
            Row(
                "cert-manager",
                [
                    graph(
                        "Work by controller",
                        PER_SECOND,
                        Query(
                            "topk(10, sum by (controller) (rate(certmanager_controller_sync_call_count[_])))",
                            "{{controller}}",
                        ),
                        stacked=True,
                        width=HALF,
                    ),
                    graph(
                        "Work that failed",
                        PER_SECOND,
                        Query(
                            "sum by (controller) (rate(certmanager_controller_sync_error_count[_])) or vector(0)",
                            "{{controller}}",
                        ),
                        width=HALF,
                    ),
                ],
            ),
        ],
        hours=24,
    )
