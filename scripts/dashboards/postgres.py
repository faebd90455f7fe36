"""Postgres: members and replication, load, and the poolers in front of it."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    CORES,
    COUNT,
    DURATION,
    GREEN,
    HALF,
    NONE_IS_WELL,
    PER_SECOND,
    QUARTER,
    RATIO,
    RED,
    SECONDS,
    SOME_ARE_WELL,
    YELLOW,
    Colours,
    Query,
    Row,
    board,
    graph,
    number,
)

POOLER = 'namespace="infrastructure", pod=~"pgbouncer-.*", container=""'
# Those of Postgres' own are no work of services.
VOLUMES = 'namespace="infrastructure", persistentvolumeclaim=~".*postgres.*"'
DATABASES = 'datname!~"template.*|"'


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "postgres",
        "Postgres",
        "Members and replication of Postgres, connections, transactions, sizes, and PgBouncer in front of it.",
        [
            Row(
                "Members",
                [
                    number("Members that answer", COUNT, "sum(pg_up)", colours=SOME_ARE_WELL),
                    number(
                        "Primaries",
                        COUNT,
                        "count(pg_replication_is_replica == 0) or vector(0)",
                        description="One, always.",
                        colours=Colours(RED, [(1, GREEN), (2, RED)]),
                    ),
                    number(
                        "Standbys missing",
                        COUNT,
                        """max(monitoring:expected_standbys:count)
                        - (count(pg_replication_is_replica == 1) or vector(0))""",
                        description="Of those that are declared.",
                        colours=NONE_IS_WELL,
                    ),
                    number(
                        "Furthest behind",
                        SECONDS,
                        "max(pg_replication_lag_seconds and pg_replication_is_replica == 1) or vector(0)",
                        colours=Colours(GREEN, [(5, YELLOW), (30, RED)]),
                    ),
                    graph(
                        "Behind the primary",
                        SECONDS,
                        Query("pg_replication_lag_seconds and pg_replication_is_replica == 1", "{{pod}}"),
                        description="Only standbys; without any there is nothing to see.",
                    ),
                    graph(
                        "Who is primary",
                        COUNT,
                        Query("1 - max by (pod) (pg_replication_is_replica)", "{{pod}}"),
                        description="1: takes writes.",
                        most=1,
                    ),
                    graph(
                        "Replication slots that nobody reads",
                        COUNT,
                        Query(
                            """sum(pg_replication_slot_slot_is_active == bool 0
                            and on (namespace, pod) pg_replication_is_replica == 0) or vector(0)""",
                            "slots",
                        ),
                        description="Of the primary, which keeps its log for them.",
                    ),
                ],
            ),
            Row(
                "Load",
                [
                    graph(
                        "Transactions",
                        PER_SECOND,
                        Query(
                            f"sum by (datname) (rate(pg_stat_database_xact_commit{{{DATABASES}}}[_]))",
                            "{{datname}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Transactions taken back",
                        PER_SECOND,
                        Query(
                            f"sum by (datname) (rate(pg_stat_database_xact_rollback{{{DATABASES}}}[_]))",
                            "{{datname}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Found in memory",
                        RATIO,
                        Query(
                            f"""sum by (datname) (rate(pg_stat_database_blks_hit{{{DATABASES}}}[_]))
                            / (sum by (datname) (rate(pg_stat_database_blks_hit{{{DATABASES}}}[_]))
                            + sum by (datname) (rate(pg_stat_database_blks_read{{{DATABASES}}}[_])) > 0)""",
                            "{{datname}}",
                        ),
                        description="Share of the blocks that were not read from disk.",
                        most=1,
                    ),
                    graph(
                        "Rows read",
                        PER_SECOND,
                        Query(
                            f"sum by (datname) (rate(pg_stat_database_tup_fetched{{{DATABASES}}}[_]))",
                            "{{datname}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Rows written",
                        PER_SECOND,
                        Query(
                            f"""sum by (datname) (rate(pg_stat_database_tup_inserted{{{DATABASES}}}[_]))
                            + sum by (datname) (rate(pg_stat_database_tup_updated{{{DATABASES}}}[_]))
                            + sum by (datname) (rate(pg_stat_database_tup_deleted{{{DATABASES}}}[_]))""",
                            "{{datname}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Deadlocks",
                        PER_SECOND,
                        Query(
                            f"sum by (datname) (rate(pg_stat_database_deadlocks{{{DATABASES}}}[_]))",
                            "{{datname}}",
                        ),
                        description="Transactions that waited for each other in circles.",
                    ),
                ],
            ),
            Row(
                "Connections",
                [
                    graph(
                        "By member and state",
                        COUNT,
                        Query("sum by (pod, state) (pg_stat_activity_count)", "{{pod}} {{state}}"),
                        stacked=True,
                    ),
                    graph(
                        "Taken",
                        RATIO,
                        Query(
                            "sum by (pod) (pg_stat_activity_count) / max by (pod) (pg_settings_max_connections)",
                            "{{pod}}",
                        ),
                        most=1,
                    ),
                    graph(
                        "Longest transaction",
                        DURATION,
                        Query('max by (datname) (pg_stat_activity_max_tx_duration{state!="idle"})', "{{datname}}"),
                    ),
                ],
            ),
            Row(
                "Room",
                [
                    graph(
                        "Size",
                        BYTES,
                        Query(f"max by (datname) (pg_database_size_bytes{{{DATABASES}}})", "{{datname}}"),
                        stacked=True,
                        width=HALF,
                    ),
                    graph(
                        "Volumes used",
                        RATIO,
                        Query(
                            f"""1 - kubelet_volume_stats_available_bytes{{{VOLUMES}}}
                            / kubelet_volume_stats_capacity_bytes{{{VOLUMES}}}""",
                            "{{persistentvolumeclaim}}",
                        ),
                        most=1,
                        width=HALF,
                    ),
                ],
            ),
            Row(
                "PgBouncer, and what services see",
                [
                    graph(
                        "CPU of the poolers",
                        CORES,
                        Query(
                            f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{POOLER}}}[_]))",
                            "{{pod}}",
                        ),
                        description="In cores.",
                        width=QUARTER,
                    ),
                    graph(
                        "Memory of the poolers",
                        BYTES,
                        Query(f"sum by (pod) (container_memory_working_set_bytes{{{POOLER}}})", "{{pod}}"),
                        width=QUARTER,
                    ),
                    graph(
                        "p95 of queries, by service",
                        SECONDS,
                        Query(
                            "histogram_quantile(0.95, sum by (service, le) "
                            "(rate(db_query_duration_seconds_bucket[_])))",
                            "{{service}}",
                        ),
                        description="Waiting for a connection included.",
                        width=QUARTER,
                    ),
                    graph(
                        "Queries that failed because the database was away",
                        PER_SECOND,
                        Query(
                            "sum by (service) (rate(db_unavailable_total[_])) or vector(0)",
                            "{{service}}",
                        ),
                        width=QUARTER,
                    ),
                ],
            ),
        ],
    )
