"""What services promise, and how much of their error budgets is left."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BUDGET_LEFT,
    COUNT,
    HALF,
    NUMBER,
    RATIO,
    SECONDS,
    USERS,
    WHOLE,
    Query,
    Row,
    board,
    choice,
    graph,
    listing,
    number,
)

SERVICE = 'service=~"$service"'
ALLOWED = f"(1 - service:slo_availability:ratio{{{SERVICE}}})"


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "slo",
        "SLO and error budgets",
        "What each service promises, how fast it uses up its error budget, and how much of it is left.",
        [
            Row(
                "Error budgets",
                [
                    number(
                        "Left",
                        RATIO,
                        f"""1 - avg_over_time(service:http_errors:rate5m{{{SERVICE}}}[30d])
                        / avg_over_time(service:http_requests:rate5m{{{SERVICE}}}[30d])
                        / on (namespace, service) {ALLOWED}""",
                        description="Of 30 days, or of as long as Prometheus keeps its samples.",
                        legend="{{service}}",
                        colours=BUDGET_LEFT,
                        width=HALF,
                    ),
                    number(
                        "Promised availability",
                        RATIO,
                        f"service:slo_availability:ratio{{{SERVICE}}}",
                        description="slo in the service.yml of each.",
                        legend="{{service}}",
                        width=HALF,
                        decimals=2,
                    ),
                    *(
                        graph(
                            f"Burn rate, {long} and {short}",
                            NUMBER,
                            Query(
                                f"service:http_error_ratio:{long}{{{SERVICE}}} / on (namespace, service) {ALLOWED}",
                                f"{{{{service}}}} {long}",
                            ),
                            Query(
                                f"service:http_error_ratio:{short}{{{SERVICE}}} / on (namespace, service) {ALLOWED}",
                                f"{{{{service}}}} {short}",
                            ),
                            Query(f"vector({factor})", "alert"),
                            description=f"1 uses up the budget in 30 days. Both above {factor}: an alert.",
                            width=HALF,
                        )
                        for long, short, factor in (
                            ("1h", "5m", 14.4),
                            ("6h", "30m", 6),
                            ("1d", "2h", 3),
                            ("3d", "6h", 1),
                        )
                    ),
                ],
            ),
            Row(
                "Latency",
                [
                    graph(
                        "p95 of what is promised",
                        RATIO,
                        Query(
                            f"""histogram_quantile(0.95, sum by (namespace, service, le)
                            (rate(http_request_duration_seconds_bucket{{{SERVICE}, {USERS}}}[_])))
                            / on (namespace, service) service:slo_latency_p95:seconds{{{SERVICE}}}""",
                            "{{service}}",
                        ),
                        description="Above 100 % the promise is broken.",
                        width=HALF,
                    ),
                    listing(
                        "Promised p95",
                        SECONDS,
                        f"service:slo_latency_p95:seconds{{{SERVICE}}}",
                        value="p95",
                        hidden=["job", "instance"],
                    ),
                ],
            ),
            Row(
                "What counts",
                [
                    graph(
                        "Failed requests of the last five minutes",
                        COUNT,
                        Query(f"service:http_errors:rate5m{{{SERVICE}}} * 300", "{{service}}"),
                        description="Less than ten in the long window of an alert wake nobody.",
                        width=WHOLE,
                        stacked=True,
                    ),
                ],
            ),
        ],
        choice("service", "Service", "label_values(service:slo_availability:ratio, service)"),
        hours=24,
    )
