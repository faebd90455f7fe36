"""Logs and traces, and whether they arrive."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    COUNT,
    HALF,
    PER_SECOND,
    SOME_ARE_WELL,
    Query,
    Row,
    board,
    choice,
    graph,
    lines,
    log_graph,
    number,
    text,
    traces,
)

# Loki refuses what would also match nothing at all, as `.*` does.
LINES = '{service_name=~"$service", service_name!=""}'
BAD = f'{LINES} | detected_level=~"error|fatal|critical"'


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "logs-traces",
        "Logs and traces",
        "Lines of all services by level, those of one request or trace, the newest traces, and whether both arrive.",
        [
            Row(
                "Logs",
                [
                    log_graph(
                        "Lines by service",
                        PER_SECOND,
                        Query(f"sum by (service_name) (rate({LINES} [$__auto]))", "{{service_name}}"),
                    ),
                    log_graph(
                        "Errors by service",
                        PER_SECOND,
                        Query(f"sum by (service_name) (rate({BAD} [$__auto]))", "{{service_name}}"),
                        description="Lines of the level error or worse; none is calm.",
                    ),
                    lines(
                        "Lines",
                        f'{LINES} |= "$id"',
                        description="The newest first. A request or trace id above leaves what services said of it.",
                    ),
                ],
            ),
            Row(
                "Traces",
                [traces("Newest traces", "api", description="Of requests to api, through which most others come.")],
            ),
            Row(
                "Whether they arrive",
                [
                    number(
                        "Collectors that answer",
                        COUNT,
                        'count(up{job="otel-collector"} == 1) or vector(0)',
                        description="One on each node.",
                        colours=SOME_ARE_WELL,
                        width=HALF,
                    ),
                    number(
                        "Loki and Jaeger answer",
                        COUNT,
                        'count(up{job=~"loki|jaeger"} == 1) or vector(0)',
                        colours=SOME_ARE_WELL,
                        width=HALF,
                    ),
                    graph(
                        "Lines that arrive",
                        PER_SECOND,
                        Query("sum(rate(otelcol_receiver_accepted_log_records_total[_]))", "read"),
                        Query("sum(rate(otelcol_exporter_sent_log_records_total[_]))", "stored"),
                        description="By the collectors.",
                    ),
                    graph(
                        "Spans",
                        PER_SECOND,
                        Query("sum by (result) (rate(trace_spans_total[_]))", "{{result}} by services"),
                        Query(
                            'sum(rate(otelcol_receiver_accepted_spans_total{job="otel-collector"}[_]))',
                            "taken by collectors",
                        ),
                        description="Services drop spans when nobody takes them, and serve on.",
                    ),
                    graph(
                        "Waiting at the collectors",
                        COUNT,
                        Query('sum by (exporter) (otelcol_exporter_queue_size{job="otel-collector"})', "{{exporter}}"),
                        description="While a backend is away this grows; lines of logs wait on disk.",
                    ),
                ],
            ),
        ],
        choice("service", "Service", "label_values(service:slo_availability:ratio, service)"),
        text("id", "Request or trace id"),
        hours=1,
    )
