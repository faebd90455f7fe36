"""The template of a service's dashboard. `<name>` and `<namespace>` stand for those of the service.

A row is for services with what it needs: a field of service.yml, or `service`, the image of those
that are built on services/kit."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BUDGET_LEFT,
    BYTES,
    BYTES_PER_SECOND,
    CORES,
    COUNT,
    DURATION,
    GREEN,
    HALF,
    NONE_IS_WELL,
    NUMBER,
    PER_SECOND,
    QUARTER,
    RATIO,
    RED,
    REQUESTS,
    SECONDS,
    SOME_ARE_WELL,
    USERS,
    WHOLE,
    YELLOW,
    Colours,
    Query,
    Row,
    board,
    graph,
    lines,
    log_graph,
    number,
    traces,
)

SERVICE = 'service="<name>", namespace="<namespace>"'
# What the two ingress controllers call it; of each pair of expressions only one finds something.
TRAEFIK = 'exported_service=~"<namespace>-<name>-<name>-[a-z0-9]+@.+"'
NGINX = 'exported_namespace="<namespace>", exported_service="<name>"'
PODS = 'namespace="<namespace>", pod=~"<name>-[a-z0-9]+-[a-z0-9]+"'
# The pod as a whole, which every runtime tells of; and its container, of which only some know more than the start.
WHOLE_PODS = f'{PODS}, container=""'
CONTAINERS = f'{PODS}, container="<name>"'
ALL = f"sum(rate(http_requests_total{{{SERVICE}, {USERS}}}[_]))"
FAILED = f'sum(rate(http_requests_total{{{SERVICE}, {USERS}, status=~"5.."}}[_]))'
BUCKETS = f"rate(http_request_duration_seconds_bucket{{{SERVICE}, {USERS}}}[_])"


def quantile(share: float, by: str = "") -> str:
    """Return the time that a share of the requests stays below."""
    return f"histogram_quantile({share}, sum by ({by}le) ({BUCKETS}))"


ROWS = [
    Row(
        "Requests",
        [
            graph("Request Rate", REQUESTS, Query(ALL, "requests"), description="Without probes and metrics."),
            graph(
                "Error Rate",
                RATIO,
                Query(f"({FAILED} or vector(0)) / {ALL}", "errors"),
                Query("1 - max(service:slo_availability:ratio{" + SERVICE + "})", "promised at most"),
                description="Share of the answers that were errors of the server (5xx).",
            ),
            graph(
                "Latency p50/p95/p99",
                SECONDS,
                *(Query(quantile(share), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99)),
                description="From the first byte of the request to the last of the answer, at the service.",
            ),
            number(
                "Active Pods",
                COUNT,
                f"count(up{{{SERVICE}}} == 1) or vector(0)",
                description="Pods that answer Prometheus.",
                colours=SOME_ARE_WELL,
                width=HALF,
            ),
            number(
                "Requests in the window",
                COUNT,
                f"sum(increase(http_requests_total{{{SERVICE}, {USERS}}}[$__range]))",
                description="In the time that is chosen above.",
                width=HALF,
                decimals=0,
            ),
        ],
        needs="service",
    ),
    Row(
        "Routes",
        [
            graph(
                "Requests by route",
                REQUESTS,
                Query(
                    f"sum by (method, route) (rate(http_requests_total{{{SERVICE}, {USERS}}}[_]))",
                    "{{method}} {{route}}",
                ),
                stacked=True,
            ),
            graph(
                "Answers by status",
                REQUESTS,
                Query(f"sum by (status) (rate(http_requests_total{{{SERVICE}, {USERS}}}[_]))", "{{status}}"),
                stacked=True,
            ),
            graph("p95 by route", SECONDS, Query(quantile(0.95, "route, "), "{{route}}")),
            graph(
                "Requests not answered yet",
                COUNT,
                Query(f"sum by (pod) (http_requests_in_progress{{{SERVICE}}})", "{{pod}}"),
            ),
            graph(
                "Places taken",
                COUNT,
                Query(f"sum by (name) (capacity_used{{{SERVICE}}})", "{{name}}"),
                Query(f"sum by (name) (capacity_waiting{{{SERVICE}}})", "{{name}}, waiting"),
                description="For what the service does for a few requests at once; what finds none is told 503.",
            ),
            graph(
                "What <name> counts itself",
                PER_SECOND,
                Query(
                    'sum by (counter) (rate(label_replace({__name__=~"<name>_.+_total", '
                    + SERVICE
                    + '}, "counter", "$1", "__name__", "(.+)_total")[_:]))',
                    "{{counter}}",
                ),
                description="Counters whose name begins with that of the service.",
            ),
        ],
        needs="service",
    ),
    Row(
        "Promise",
        [
            number(
                "Error budget left",
                RATIO,
                f"""1 - avg_over_time(service:http_errors:rate5m{{{SERVICE}}}[30d])
                / avg_over_time(service:http_requests:rate5m{{{SERVICE}}}[30d])
                / (1 - service:slo_availability:ratio{{{SERVICE}}})""",
                description="Of 30 days, or of as long as Prometheus keeps its samples.",
                colours=BUDGET_LEFT,
                width=HALF,
            ),
            number(
                "Promised availability",
                RATIO,
                f"service:slo_availability:ratio{{{SERVICE}}}",
                description="slo in service.yml.",
                width=HALF,
                decimals=2,
            ),
        ],
        needs="service",
    ),
    Row(
        "At the ingress",
        [
            graph(
                "Requests by status",
                REQUESTS,
                Query(
                    f"""sum by (code) (
                    rate(traefik_service_requests_total{{{TRAEFIK}}}[_]))
                    or sum by (status) (
                    rate(nginx_ingress_controller_requests{{{NGINX}}}[_]))""",
                    "{{code}}{{status}}",
                ),
                description="As users see it: also what no pod answered.",
                stacked=True,
                width=HALF,
            ),
            graph(
                "p95",
                SECONDS,
                Query(
                    f"""histogram_quantile(0.95, sum by (le) (
                    rate(traefik_service_request_duration_seconds_bucket{{{TRAEFIK}}}[_])))
                    or histogram_quantile(0.95, sum by (le) (
                    rate(nginx_ingress_controller_request_duration_seconds_bucket{{{NGINX}}}[_])))""",
                    "p95",
                ),
                width=HALF,
            ),
        ],
        needs="ingress",
    ),
    Row(
        "Database",
        [
            graph(
                "p95 by query",
                SECONDS,
                Query(
                    "histogram_quantile(0.95, sum by (query, le) "
                    f"(rate(db_query_duration_seconds_bucket{{{SERVICE}}}[_])))",
                    "{{query}}",
                ),
                description="Waiting for a connection included.",
                width=HALF,
            ),
            graph(
                "Queries",
                PER_SECOND,
                Query(
                    f"sum by (query) (rate(db_query_duration_seconds_count{{{SERVICE}}}[_]))",
                    "{{query}}",
                ),
                stacked=True,
                width=HALF,
            ),
            graph(
                "Connections",
                COUNT,
                Query(f"sum by (pod, state) (db_pool_connections{{{SERVICE}}})", "{{pod}} {{state}}"),
                description="Of the pool of each pod.",
                stacked=True,
                width=HALF,
            ),
            graph(
                "Queries that failed because the database was away",
                PER_SECOND,
                Query(f"sum(rate(db_unavailable_total{{{SERVICE}}}[_])) or vector(0)", "failed"),
                width=HALF,
            ),
        ],
        needs="database",
    ),
    Row(
        "Redis",
        [
            graph(
                "What was done without Redis",
                PER_SECOND,
                Query(f"sum(rate(redis_unavailable_total{{{SERVICE}}}[_])) or vector(0)", "operations"),
                description="Rate limits that did not count, reads that went to Postgres.",
                width=HALF,
            ),
            graph(
                "Age of the list of ended sessions",
                DURATION,
                Query(f"max by (pod) (revocations_age_seconds{{{SERVICE}}})", "{{pod}}"),
                description="Access tokens of sessions that ended since then are still accepted.",
                width=HALF,
            ),
        ],
        needs="redis",
    ),
    Row(
        "Pods",
        [
            graph(
                "CPU",
                CORES,
                Query(
                    f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{WHOLE_PODS}}}[_]))",
                    "{{pod}}",
                ),
                description="In cores.",
            ),
            graph(
                "Memory",
                BYTES,
                Query(f"sum by (pod) (container_memory_working_set_bytes{{{WHOLE_PODS}}})", "{{pod}}"),
                Query(f"max(container_spec_memory_limit_bytes{{{WHOLE_PODS}}})", "limit"),
            ),
            graph(
                "Network",
                BYTES_PER_SECOND,
                Query(f"sum(rate(container_network_receive_bytes_total{{{PODS}}}[_]))", "in"),
                Query(f"sum(rate(container_network_transmit_bytes_total{{{PODS}}}[_]))", "out"),
            ),
            number(
                "Starts of containers in the window",
                COUNT,
                f"sum(changes(container_start_time_seconds{{{CONTAINERS}}}[$__range]))",
                description="Of pods that are still there; 0 is calm.",
                colours=Colours(GREEN, [(1, YELLOW), (3, RED)]),
                width=QUARTER,
            ),
            number(
                "Throttled",
                RATIO,
                f"""sum(rate(container_cpu_cfs_throttled_periods_total{{{WHOLE_PODS}}}[_]))
                / sum(rate(container_cpu_cfs_periods_total{{{WHOLE_PODS}}}[_]))""",
                description="Share of the periods in which the limit of CPU was reached.",
                colours=Colours(GREEN, [(0.25, YELLOW), (0.5, RED)]),
                width=QUARTER,
            ),
            number(
                "Killed for memory",
                COUNT,
                f"sum(increase(container_oom_events_total{{{PODS}}}[$__range]))",
                description="In the time that is chosen above.",
                colours=NONE_IS_WELL,
                width=QUARTER,
                decimals=0,
            ),
            number(
                "Up",
                NUMBER,
                f"min(up{{{SERVICE}}})",
                description="1 if every pod answers Prometheus.",
                colours=SOME_ARE_WELL,
                width=QUARTER,
            ),
        ],
    ),
    Row(
        "Logs",
        [
            log_graph(
                "Lines by level",
                PER_SECOND,
                Query('sum by (detected_level) (rate({service_name="<name>"}[$__auto]))', "{{detected_level}}"),
                width=WHOLE,
            ),
            lines("Logs", '{service_name="<name>"}', description="The newest first; a trace id leads to its trace."),
        ],
    ),
    Row(
        "Traces",
        [traces("Traces", "<name>", description="The newest requests that this service has a part in.")],
    ),
]


def dashboard() -> models.Dashboard:
    """Return the template, all rows in it."""
    return board(
        "service-<name>",
        "Service <name>",
        "What users of <name> get, its calls, and its pods.",
        ROWS,
    )


def needs() -> dict[str, str]:
    """Return what the rows need that not every service has, by their headings."""
    return {row.title: row.needs for row in ROWS if row.needs}
