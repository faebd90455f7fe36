"""Backups of Postgres and copies of objects."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BACKUP_AGE,
    COUNT,
    DURATION,
    HALF,
    PER_SECOND,
    SINCE_BACKUP,
    SINCE_VERIFIED_BACKUP,
    Query,
    Row,
    board,
    graph,
    number,
)


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
                        SINCE_BACKUP,
                        description="Nothing to see: there never was one.",
                        colours=BACKUP_AGE,
                        width=HALF,
                    ),
                    number(
                        "Since the last verified backup",
                        DURATION,
                        SINCE_VERIFIED_BACKUP,
                        description="Until when everything was restored and found to be right. Nothing to see: never.",
                        colours=BACKUP_AGE,
                        width=HALF,
                    ),
                    graph(
                        "Age",
                        DURATION,
                        Query(SINCE_BACKUP, "made"),
                        Query(SINCE_VERIFIED_BACKUP, "verified"),
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
