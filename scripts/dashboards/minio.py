"""The object store."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    GREEN,
    HALF,
    NONE_IS_WELL,
    PER_SECOND,
    RATIO,
    RED,
    REQUESTS,
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
        "minio",
        "Object store",
        "Room, drives, requests and errors of MinIO, what it heals, and the copies on the second site.",
        [
            Row(
                "Now",
                [
                    number("Members that answer", COUNT, 'sum(up{job="minio"})', colours=SOME_ARE_WELL, width=4),
                    number(
                        "Drives away",
                        COUNT,
                        "max(minio_cluster_drive_offline_total)",
                        colours=NONE_IS_WELL,
                        width=4,
                    ),
                    number(
                        "Room used",
                        RATIO,
                        """1 - max(minio_cluster_capacity_usable_free_bytes)
                        / max(minio_cluster_capacity_usable_total_bytes)""",
                        colours=Colours(GREEN, [(0.8, YELLOW), (0.9, RED)]),
                        width=4,
                    ),
                    number("Objects", COUNT, "max(minio_cluster_usage_object_total)", width=4),
                    number("Bytes of objects", BYTES, "max(minio_cluster_usage_total_bytes)", width=4),
                    number("Buckets", COUNT, "max(minio_cluster_bucket_total)", width=4),
                ],
            ),
            Row(
                "Requests",
                [
                    graph(
                        "Requests by call",
                        REQUESTS,
                        Query("sum by (api) (rate(minio_s3_requests_total[_]))", "{{api}}"),
                        stacked=True,
                    ),
                    graph(
                        "Errors",
                        REQUESTS,
                        Query(
                            "sum by (api) (rate(minio_s3_requests_4xx_errors_total[_]))",
                            "{{api}}, of the client",
                        ),
                        Query(
                            "sum by (api) (rate(minio_s3_requests_5xx_errors_total[_])) or vector(0)",
                            "{{api}}, its own",
                        ),
                        description="MinIO tells of its own errors from the first one on.",
                    ),
                    graph(
                        "p95 until the first byte",
                        SECONDS,
                        Query(
                            "histogram_quantile(0.95, sum by (api, le) "
                            "(rate(minio_s3_requests_ttfb_seconds_distribution[_])))",
                            "{{api}}",
                        ),
                    ),
                    graph(
                        "Traffic",
                        BYTES_PER_SECOND,
                        Query("sum(rate(minio_s3_traffic_received_bytes[_]))", "in"),
                        Query("sum(rate(minio_s3_traffic_sent_bytes[_]))", "out"),
                    ),
                    graph(
                        "Requests that it works on",
                        COUNT,
                        Query("sum(minio_s3_requests_inflight_total) or vector(0)", "work"),
                        Query("sum(minio_s3_requests_waiting_total)", "wait"),
                    ),
                    graph(
                        "Refused: wrong key or time",
                        REQUESTS,
                        Query("sum(rate(minio_s3_requests_rejected_auth_total[_]))", "keys"),
                        Query("sum(rate(minio_s3_requests_rejected_timestamp_total[_]))", "time"),
                    ),
                ],
            ),
            Row(
                "What is kept",
                [
                    graph(
                        "Bytes",
                        BYTES,
                        Query("max(minio_cluster_usage_total_bytes)", "all versions of all objects"),
                        description="Counted by the scanner, which takes its time.",
                    ),
                    graph(
                        "Objects and versions",
                        COUNT,
                        Query("max(minio_cluster_usage_object_total)", "objects"),
                        Query("max(minio_cluster_usage_version_total)", "versions"),
                        Query("max(minio_cluster_usage_deletemarker_total)", "marks of deleted ones"),
                    ),
                    graph(
                        "Buckets looked through",
                        PER_SECOND,
                        Query("sum(rate(minio_node_scanner_bucket_scans_finished[_]))", "by the scanner"),
                    ),
                ],
            ),
            Row(
                "Drives and copies",
                [
                    graph(
                        "Drive used",
                        RATIO,
                        Query(
                            """max by (server, drive) (minio_node_drive_used_bytes /
                            (minio_node_drive_total_bytes > 0))""",
                            "{{server}} {{drive}}",
                        ),
                        most=1,
                    ),
                    graph(
                        "Healed",
                        PER_SECOND,
                        Query("sum(rate(minio_heal_objects_heal_total[_])) or vector(0)", "objects"),
                        Query("sum(rate(minio_heal_objects_errors_total[_])) or vector(0)", "failed"),
                        description="Objects that were damaged on a drive and made whole again.",
                    ),
                    graph(
                        "The second site can be reached",
                        COUNT,
                        Query("min by (endpoint) (minio_node_replication_link_online)", "{{endpoint}}"),
                        description="1: yes.",
                        most=1,
                    ),
                    graph(
                        "Copies that wait",
                        COUNT,
                        Query("sum(minio_node_replication_current_active_workers)", "being copied"),
                        Query("sum(minio_node_replication_last_minute_queued_count)", "waiting"),
                        Query("sum(minio_node_replication_recent_backlog_count)", "for longer than five minutes"),
                        width=HALF,
                    ),
                    graph(
                        "Copied",
                        BYTES_PER_SECOND,
                        Query("sum(minio_node_replication_current_transfer_rate)", "to the second site"),
                        width=HALF,
                    ),
                ],
            ),
        ],
    )
