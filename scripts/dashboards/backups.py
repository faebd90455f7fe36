"""Backups of Postgres and copies of objects."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    COUNT,
    DURATION,
    GREEN,
    HALF,
    PER_SECOND,
    RED,
    YELLOW,
    Query,
    Row,
    board,
    graph,
    number,
)

DUE = [(26 * 3600.0, YELLOW), (50 * 3600.0, RED)]


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "backups",
        "Backups",
        "When Postgres was backed up and shown to restore, whether its log is sent, and the copies of objects.",
        [
            Row(
                "Postgres",
                [
                    number(
                        "Since the last backup",
                        DURATION,
                        "time() - max(backup_last_completed_timestamp > 0)",
                        description="Nothing to see: there never was one.",
                        first=GREEN,
                        steps=DUE,
                        width=HALF,
                    ),
                    number(
                        "Since the last verified backup",
                        DURATION,
                        "time() - max(backup_last_verified_timestamp > 0)",
                        description="Until when everything was restored and found to be right. Nothing to see: never.",
                        first=GREEN,
                        steps=DUE,
                        width=HALF,
                    ),
                    graph(
                        "Age",
                        DURATION,
                        Query("time() - max(backup_last_completed_timestamp > 0)", "made"),
                        Query("time() - max(backup_last_verified_timestamp > 0)", "verified"),
                    ),
                    graph(
                        "Pieces of the log sent",
                        PER_SECOND,
                        Query("sum by (pod) (rate(pg_stat_archiver_archived_count[_]))", "{{pod}}"),
                        description="To the second site, at least one a minute while something is written.",
                    ),
                    graph(
                        "Pieces of the log not sent",
                        PER_SECOND,
                        Query("sum by (pod) (rate(pg_stat_archiver_failed_count[_]))", "{{pod}}"),
                        description="Tried and failed; they are tried again.",
                    ),
                    graph(
                        "Since a piece was sent",
                        DURATION,
                        Query(
                            """max by (pod) (pg_stat_archiver_last_archive_age and on
                            (pod) pg_replication_is_replica == 0)""",
                            "{{pod}}",
                        ),
                        width=HALF,
                    ),
                    graph(
                        "The second site can be reached",
                        COUNT,
                        Query("min by (endpoint) (minio_node_replication_link_online)", "{{endpoint}}"),
                        description="By the object store, for copies of objects. 1: yes.",
                        most=1,
                        width=HALF,
                    ),
                ],
            ),
        ],
        hours=48,
    )
