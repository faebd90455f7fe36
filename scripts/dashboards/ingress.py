"""What comes in, whichever controller serves."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    BYTES_PER_SECOND,
    CORES,
    COUNT,
    GREEN,
    HALF,
    RATIO,
    RED,
    REQUESTS,
    SECONDS,
    SOME_ARE_WELL,
    Colours,
    Query,
    Row,
    board,
    graph,
    number,
)

# Of the two names only one is there; `or` takes it.
ALL = """(sum(rate(traefik_entrypoint_requests_total{entrypoint=~"web.*"}[_]))
or sum(rate(nginx_ingress_controller_requests[_])))"""
FAILED = """(sum(rate(traefik_entrypoint_requests_total{entrypoint=~"web.*", code=~"5.."}[_]))
or sum(rate(nginx_ingress_controller_requests{status=~"5.."}[_])) or vector(0))"""
PODS = 'namespace="ingress-nginx", pod=~"(traefik|ingress-nginx)-.*", container=""'


def quantile(share: float) -> str:
    """Return the time that a share of all requests stays below."""
    return f"""histogram_quantile({share}, sum by (le) (
    rate(traefik_entrypoint_request_duration_seconds_bucket{{entrypoint=~"web.*"}}[_])))
    or histogram_quantile({share}, sum by (le) (rate(nginx_ingress_controller_request_duration_seconds_bucket[_])))"""


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "ingress",
        "Ingress",
        "What comes in from outside: requests, errors and times by service, connections, the pods of the controller.",
        [
            Row(
                "Now",
                [
                    number(
                        "Pods that answer",
                        COUNT,
                        'count(up{job=~"traefik|ingress-nginx"} == 1) or vector(0)',
                        colours=SOME_ARE_WELL,
                    ),
                    number("Requests", REQUESTS, ALL),
                    number("Error ratio", RATIO, f"{FAILED} / {ALL}", colours=Colours(GREEN, [(0.05, RED)])),
                    number(
                        "Settings were read",
                        COUNT,
                        """count(traefik_config_last_reload_success > 0)
                        or sum(nginx_ingress_controller_config_last_reload_successful)""",
                        description="Pods whose last reading of the settings went well.",
                        colours=SOME_ARE_WELL,
                    ),
                ],
            ),
            Row(
                "Requests",
                [
                    graph(
                        "By status",
                        REQUESTS,
                        Query(
                            """sum by (code) (rate(traefik_entrypoint_requests_total{entrypoint=~"web.*"}[_]))
                            or sum by (status) (rate(nginx_ingress_controller_requests[_]))""",
                            "{{code}}{{status}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "By service",
                        REQUESTS,
                        Query(
                            """sum by (exported_service) (rate(traefik_service_requests_total[_]))
                            or sum by (exported_service) (rate(nginx_ingress_controller_requests[_]))""",
                            "{{exported_service}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Time",
                        SECONDS,
                        *(Query(quantile(share), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99)),
                        description="From the first byte of the request to the last of the answer, at the ingress.",
                    ),
                    graph(
                        "p95 by service",
                        SECONDS,
                        Query(
                            """histogram_quantile(0.95, sum by (exported_service, le) (
                            rate(traefik_service_request_duration_seconds_bucket[_])))
                            or histogram_quantile(0.95, sum by (exported_service, le) (
                            rate(nginx_ingress_controller_request_duration_seconds_bucket[_])))""",
                            "{{exported_service}}",
                        ),
                    ),
                    graph(
                        "Traffic",
                        BYTES_PER_SECOND,
                        Query(
                            """sum(rate(traefik_entrypoint_requests_bytes_total{entrypoint=~"web.*"}[_]))
                            or sum(rate(nginx_ingress_controller_request_size_sum[_]))""",
                            "in",
                        ),
                        Query(
                            """sum(rate(traefik_entrypoint_responses_bytes_total{entrypoint=~"web.*"}[_]))
                            or sum(rate(nginx_ingress_controller_response_size_sum[_]))""",
                            "out",
                        ),
                    ),
                    graph(
                        "Open connections",
                        COUNT,
                        Query(
                            """sum by (entrypoint) (traefik_open_connections)
                            or sum by (state) (nginx_ingress_controller_nginx_process_connections)""",
                            "{{entrypoint}}{{state}}",
                        ),
                    ),
                ],
            ),
            Row(
                "Pods",
                [
                    graph(
                        "CPU",
                        CORES,
                        Query(
                            f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{PODS}}}[_]))",
                            "{{pod}}",
                        ),
                        description="In cores.",
                        width=HALF,
                    ),
                    graph(
                        "Memory",
                        BYTES,
                        Query(f"sum by (pod) (container_memory_working_set_bytes{{{PODS}}})", "{{pod}}"),
                        width=HALF,
                    ),
                ],
            ),
        ],
    )
