"""The first page: whether all is well, and where to look if not."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BACKUP_AGE,
    CERTIFICATE_LEFT,
    COUNT,
    DURATION,
    FIRING,
    FIRST_CERTIFICATE_ENDS,
    GREEN,
    HALF,
    NONE_IS_WELL,
    RATIO,
    REQUESTS,
    SECONDS,
    SINCE_VERIFIED_BACKUP,
    USERS,
    WHOLE,
    YELLOW,
    Colours,
    Query,
    Row,
    board,
    graph,
    listing,
    number,
)


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "overview",
        "Overview",
        "Whether all is well: services, hosts, open alerts, the last verified backup, the certificate that ends first.",
        [
            Row(
                "Now",
                [
                    number(
                        "Services without a pod",
                        COUNT,
                        "count(service:slo_availability:ratio unless on (namespace, service) (up == 1)) or vector(0)",
                        description="Enabled, and no pod of them answers.",
                        colours=NONE_IS_WELL,
                        width=4,
                    ),
                    number(
                        "Alerts",
                        COUNT,
                        f"count({FIRING}) or vector(0)",
                        description="That fire now, the dead man's switch aside.",
                        colours=NONE_IS_WELL,
                        width=4,
                    ),
                    number(
                        "Nodes",
                        COUNT,
                        'count(up{job="kubelet"} == 1) or vector(0)',
                        description="Whose kubelet answers.",
                        width=4,
                    ),
                    number(
                        "Targets that do not answer",
                        COUNT,
                        "count(up == 0) or vector(0)",
                        colours=Colours(GREEN, [(1, YELLOW)]),
                        width=4,
                    ),
                    number(
                        "Since the last verified backup",
                        DURATION,
                        SINCE_VERIFIED_BACKUP,
                        description="Until when everything was restored and found to be right.",
                        colours=BACKUP_AGE,
                        width=4,
                    ),
                    number(
                        "Until the first certificate ends",
                        DURATION,
                        FIRST_CERTIFICATE_ENDS,
                        colours=CERTIFICATE_LEFT,
                        width=4,
                    ),
                ],
            ),
            Row(
                "Services",
                [
                    graph("Requests", REQUESTS, Query("service:http_requests:rate5m", "{{service}}"), stacked=True),
                    graph(
                        "Error ratio",
                        RATIO,
                        Query("service:http_error_ratio:5m", "{{service}}"),
                        description="Share of the answers that were errors of the server (5xx), of five minutes.",
                    ),
                    graph(
                        "p95",
                        SECONDS,
                        Query(
                            "histogram_quantile(0.95, sum by (service, le) "
                            f"(rate(http_request_duration_seconds_bucket{{{USERS}}}[_])))",
                            "{{service}}",
                        ),
                    ),
                    listing(
                        "Alerts that fire",
                        COUNT,
                        'ALERTS{alertstate="firing"}',
                        description="Watchdog fires always: who gets it knows that alerts arrive.",
                        hidden=["Value", "alertstate", "job", "instance"],
                        width=WHOLE,
                    ),
                ],
            ),
            Row(
                "Hosts",
                [
                    graph("CPU", RATIO, Query("node:cpu_used:ratio", "{{node}}"), most=1),
                    graph("Memory", RATIO, Query("node:memory_used:ratio", "{{node}}"), most=1),
                    graph("Disk", RATIO, Query("node:disk_used:ratio", "{{node}}"), most=1),
                ],
            ),
            Row(
                "Data",
                [
                    graph(
                        "Members that answer",
                        COUNT,
                        Query("sum(pg_up)", "Postgres"),
                        Query("sum(redis_up)", "Redis"),
                        Query('sum(up{job="minio"})', "MinIO"),
                        width=HALF,
                    ),
                    graph(
                        "Pods that answer, by job",
                        COUNT,
                        Query("sum by (job) (up)", "{{job}}"),
                        width=HALF,
                    ),
                ],
            ),
        ],
    )
