"""Redis, which services use as a cache."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    DURATION,
    GREEN,
    HALF,
    PER_SECOND,
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


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "redis",
        "Redis",
        "Memory, commands, hits and connections of Redis, and what services did without it.",
        [
            Row(
                "Now",
                [
                    number("Up", COUNT, "min(redis_up)", colours=SOME_ARE_WELL),
                    number(
                        "Memory used",
                        RATIO,
                        "max(redis_memory_used_bytes / (redis_memory_max_bytes > 0))",
                        description="Of what it may use before it removes the oldest keys.",
                        colours=Colours(GREEN, [(0.8, YELLOW), (0.95, RED)]),
                    ),
                    number("Keys", COUNT, "sum(redis_db_keys)"),
                    number("Runs since", DURATION, "max(redis_uptime_in_seconds)"),
                ],
            ),
            Row(
                "Work",
                [
                    graph(
                        "Commands",
                        PER_SECOND,
                        Query("topk(10, sum by (cmd) (rate(redis_commands_total[_])))", "{{cmd}}"),
                        stacked=True,
                    ),
                    graph(
                        "Time of a command",
                        SECONDS,
                        Query(
                            """topk(10, sum by (cmd) (rate(redis_commands_duration_seconds_total[_]))
                            / (sum by (cmd) (rate(redis_commands_total[_])) > 0))""",
                            "{{cmd}}",
                        ),
                        description="On average.",
                    ),
                    graph(
                        "Found",
                        RATIO,
                        Query(
                            """sum(rate(redis_keyspace_hits_total[_]))
                            / (sum(rate(redis_keyspace_hits_total[_]))
                            + sum(rate(redis_keyspace_misses_total[_])) > 0)""",
                            "hits",
                        ),
                        description="Share of the reads that found their key.",
                        most=1,
                    ),
                    graph(
                        "Memory",
                        BYTES,
                        Query("max(redis_memory_used_bytes)", "used"),
                        Query("max(redis_memory_max_bytes)", "may be used"),
                        Query("max(redis_memory_used_rss_bytes)", "of the system"),
                    ),
                    graph(
                        "Keys that went",
                        PER_SECOND,
                        Query("sum(rate(redis_expired_keys_total[_]))", "their time was over"),
                        Query("sum(rate(redis_evicted_keys_total[_]))", "for want of memory"),
                    ),
                    graph(
                        "Network",
                        BYTES_PER_SECOND,
                        Query("sum(rate(redis_net_input_bytes_total[_]))", "in"),
                        Query("sum(rate(redis_net_output_bytes_total[_]))", "out"),
                    ),
                ],
            ),
            Row(
                "Clients",
                [
                    graph(
                        "Connections",
                        COUNT,
                        Query("sum(redis_connected_clients)", "connected"),
                        Query("sum(redis_blocked_clients)", "blocked"),
                    ),
                    graph(
                        "Connections refused",
                        PER_SECOND,
                        Query("sum(rate(redis_rejected_connections_total[_]))", "refused"),
                    ),
                    graph(
                        "What services did without it",
                        PER_SECOND,
                        Query(
                            "sum by (service) (rate(redis_unavailable_total[_])) or vector(0)",
                            "{{service}}",
                        ),
                    ),
                ],
            ),
            Row(
                "Its volume",
                [
                    graph(
                        "Last write and copy were right",
                        COUNT,
                        Query("min(redis_aof_last_write_status)", "log, write"),
                        Query("min(redis_aof_last_bgrewrite_status)", "log, made shorter"),
                        Query("min(redis_rdb_last_bgsave_status)", "copy"),
                        description="1: yes.",
                        most=1,
                        width=HALF,
                    ),
                    graph(
                        "Changes not copied yet",
                        COUNT,
                        Query("max(redis_rdb_changes_since_last_save)", "changes"),
                        width=HALF,
                    ),
                ],
            ),
        ],
    )
