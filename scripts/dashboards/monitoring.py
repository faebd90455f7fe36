"""Whether what watches can see and tell."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    COUNT,
    GREEN,
    HALF,
    NONE_IS_WELL,
    PER_SECOND,
    QUARTER,
    SECONDS,
    SOME_ARE_WELL,
    YELLOW,
    Colours,
    Query,
    Row,
    board,
    graph,
    listing,
    number,
)

OWN = 'job="prometheus"'


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "monitoring",
        "Monitoring",
        "Whether Prometheus sees everything, its rules work, and Alertmanager can tell somebody.",
        [
            Row(
                "Now",
                [
                    number(
                        "Targets that do not answer",
                        COUNT,
                        "count(up == 0) or vector(0)",
                        colours=NONE_IS_WELL,
                        width=4,
                    ),
                    number(
                        "Jobs that are missed",
                        COUNT,
                        "count(monitoring:expected_job:info unless on (job) up) or vector(0)",
                        description="Declared, and no pod of them is there.",
                        colours=NONE_IS_WELL,
                        width=4,
                    ),
                    number(
                        "Rules refused",
                        COUNT,
                        "count(monitoring:refused_rules:info == 1) or vector(0)",
                        description="Files of rules that somebody brought and promtool does not accept.",
                        colours=NONE_IS_WELL,
                        width=4,
                    ),
                    number(
                        "Alertmanagers that are told",
                        COUNT,
                        "min(prometheus_notifications_alertmanagers_discovered)",
                        colours=SOME_ARE_WELL,
                        width=4,
                    ),
                    number("Alerts now", COUNT, 'count(ALERTS{alertstate="firing"})', width=4),
                    number(
                        "Silences",
                        COUNT,
                        'sum(alertmanager_silences{state="active"})',
                        colours=Colours(GREEN, [(1, YELLOW)]),
                        width=4,
                    ),
                ],
            ),
            Row(
                "Prometheus",
                [
                    graph("Targets that answer", COUNT, Query("sum by (job) (up)", "{{job}}"), stacked=True),
                    graph(
                        "Time of a scrape",
                        SECONDS,
                        Query("topk(10, max by (job) (scrape_duration_seconds))", "{{job}}"),
                        description="The slowest target of each job.",
                    ),
                    graph(
                        "Samples of a scrape",
                        COUNT,
                        Query("topk(10, sum by (job) (scrape_samples_post_metric_relabeling))", "{{job}}"),
                        description="That are kept.",
                    ),
                    graph(
                        "Series in memory",
                        COUNT,
                        Query(f"max(prometheus_tsdb_head_series{{{OWN}}})", "series"),
                        width=QUARTER,
                    ),
                    graph(
                        "Samples",
                        PER_SECOND,
                        Query(
                            f"sum(rate(prometheus_tsdb_head_samples_appended_total{{{OWN}}}[_]))",
                            "samples",
                        ),
                        width=QUARTER,
                    ),
                    graph(
                        "On its volume",
                        BYTES,
                        Query(
                            f"""max(prometheus_tsdb_storage_blocks_bytes{{{OWN}}}
                            + prometheus_tsdb_wal_storage_size_bytes{{{OWN}}})""",
                            "used",
                        ),
                        width=QUARTER,
                    ),
                    graph(
                        "Memory",
                        BYTES,
                        Query(f"max(process_resident_memory_bytes{{{OWN}}})", "Prometheus"),
                        Query('max(process_resident_memory_bytes{job="alertmanager"})', "Alertmanager"),
                        width=QUARTER,
                    ),
                ],
            ),
            Row(
                "Rules",
                [
                    graph(
                        "Time of a group",
                        SECONDS,
                        Query(
                            f"""topk(10, label_replace(max by (rule_group)
                            (prometheus_rule_group_last_duration_seconds{{{OWN}}}), "group", "$1",
                            "rule_group", ".*;(.*)"))""",
                            "{{group}}",
                        ),
                        width=HALF,
                    ),
                    graph(
                        "Evaluations that failed or were late",
                        PER_SECOND,
                        Query(f"sum(rate(prometheus_rule_evaluation_failures_total{{{OWN}}}[_]))", "failed"),
                        Query(
                            f"sum(rate(prometheus_rule_group_iterations_missed_total{{{OWN}}}[_]))",
                            "late",
                        ),
                        width=HALF,
                    ),
                ],
            ),
            Row(
                "Alerts",
                [
                    graph(
                        "By state",
                        COUNT,
                        Query("count by (alertstate) (ALERTS)", "{{alertstate}}"),
                        stacked=True,
                    ),
                    graph(
                        "Told to Alertmanager",
                        PER_SECOND,
                        Query(f"sum(rate(prometheus_notifications_sent_total{{{OWN}}}[_]))", "sent"),
                        Query(f"sum(rate(prometheus_notifications_errors_total{{{OWN}}}[_]))", "failed"),
                    ),
                    graph(
                        "Told to somebody",
                        PER_SECOND,
                        Query(
                            "sum by (integration) (rate(alertmanager_notifications_total[_]))",
                            "{{integration}}",
                        ),
                        Query(
                            "sum by (integration) (rate(alertmanager_notifications_failed_total[_]))",
                            "{{integration}} failed",
                        ),
                        description="Without a receiver nobody is told, and all of this is 0.",
                    ),
                    listing(
                        "Alerts that fire",
                        COUNT,
                        'ALERTS{alertstate="firing"}',
                        description="Watchdog fires always: who gets it knows that alerts arrive.",
                        hidden=["Value", "alertstate", "job", "instance"],
                        width=24,
                    ),
                ],
            ),
        ],
    )
