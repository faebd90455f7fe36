"""Hosts: CPU, memory, network and disk of each node."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    HALF,
    NUMBER,
    PER_SECOND,
    QUARTER,
    RATIO,
    SECONDS,
    Query,
    Row,
    board,
    choice,
    graph,
)

NODE = 'node=~"$node"'


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "infrastructure",
        "Infrastructure",
        "CPU, memory, network and disk of each node.",
        [
            Row(
                "CPU",
                [
                    graph("CPU used", RATIO, Query(f"node:cpu_used:ratio{{{NODE}}}", "{{node}}"), most=1),
                    graph(
                        "By what it does",
                        RATIO,
                        Query(
                            f"""avg by (mode) (rate(node_cpu_seconds_total{{{NODE}, mode!="idle"}}[_]))""",
                            "{{mode}}",
                        ),
                        description="iowait: it waits for a disk. steal: the machine below gives the time to others.",
                        stacked=True,
                    ),
                    graph(
                        "Load",
                        NUMBER,
                        Query(f"max by (node) (node_load5{{{NODE}}})", "{{node}}"),
                        Query(f"max by (node) (machine_cpu_cores{{{NODE}}})", "cores of {{node}}"),
                        description="Processes that run or wait, average of five minutes. Above the cores they wait.",
                    ),
                ],
            ),
            Row(
                "Memory",
                [
                    graph("Memory used", RATIO, Query(f"node:memory_used:ratio{{{NODE}}}", "{{node}}"), most=1),
                    graph(
                        "Available",
                        BYTES,
                        Query(f"max by (node) (node_memory_MemAvailable_bytes{{{NODE}}})", "{{node}}"),
                        description="What can be had without swapping.",
                    ),
                    graph(
                        "Pages read again from disk",
                        PER_SECOND,
                        Query(f"sum by (node) (rate(node_vmstat_pgmajfault{{{NODE}}}[_]))", "{{node}}"),
                        description="Many of them for long: memory is short.",
                    ),
                ],
            ),
            Row(
                "Network",
                [
                    graph(
                        "In",
                        BYTES_PER_SECOND,
                        Query(
                            f"""sum by (node) (rate(container_network_receive_bytes_total{{{NODE}, id="/"}}[_]))""",
                            "{{node}}",
                        ),
                        description="All interfaces of the host.",
                        width=HALF,
                    ),
                    graph(
                        "Out",
                        BYTES_PER_SECOND,
                        Query(
                            f"""sum by (node) (rate(container_network_transmit_bytes_total{{{NODE}, id="/"}}[_]))""",
                            "{{node}}",
                        ),
                        description="All interfaces of the host.",
                        width=HALF,
                    ),
                ],
            ),
            Row(
                "Disk",
                [
                    graph(
                        "Disk used",
                        RATIO,
                        Query(
                            f"""max by (node, mountpoint) (1 - node_filesystem_avail_bytes{{{NODE}}} /
                            (node_filesystem_size_bytes{{{NODE}}} > 0))""",
                            "{{node}} {{mountpoint}}",
                        ),
                        most=1,
                    ),
                    graph(
                        "Inodes used",
                        RATIO,
                        Query(
                            f"max by (node, mountpoint) (1 - node_filesystem_files_free{{{NODE}}} "
                            f"/ (node_filesystem_files{{{NODE}}} > 0))",
                            "{{node}} {{mountpoint}}",
                        ),
                        most=1,
                    ),
                    graph(
                        "Busy",
                        RATIO,
                        Query(
                            f"max by (node, device) (rate(node_disk_io_time_seconds_total{{{NODE}}}[_]))",
                            "{{node}} {{device}}",
                        ),
                        description="Share of the time in which the device had something to do.",
                        most=1,
                    ),
                    graph(
                        "Read",
                        BYTES_PER_SECOND,
                        Query(
                            f"sum by (node, device) (rate(node_disk_read_bytes_total{{{NODE}}}[_]))",
                            "{{node}} {{device}}",
                        ),
                        width=QUARTER,
                    ),
                    graph(
                        "Written",
                        BYTES_PER_SECOND,
                        Query(
                            f"sum by (node, device) (rate(node_disk_written_bytes_total{{{NODE}}}[_]))",
                            "{{node}} {{device}}",
                        ),
                        width=QUARTER,
                    ),
                    graph(
                        "Open files",
                        RATIO,
                        Query(f"node_filefd_allocated{{{NODE}}} / node_filefd_maximum{{{NODE}}}", "{{node}}"),
                        description="Of those that the kernel allows.",
                        width=QUARTER,
                    ),
                    graph(
                        "Clock",
                        SECONDS,
                        Query(
                            f"""max by (node) (abs(node_time_seconds{{{NODE}}} - timestamp(node_time_seconds
                            {{{NODE}}})))""",
                            "{{node}}",
                        ),
                        description="How far the clock of the host is from that of Prometheus.",
                        width=QUARTER,
                    ),
                ],
            ),
            Row(
                "Pods",
                [
                    graph(
                        "Pods", COUNT, Query(f"max by (node) (kubelet_running_pods{{{NODE}}})", "{{node}}"), width=HALF
                    ),
                    graph(
                        "Processes that wait",
                        COUNT,
                        Query(f"max by (node) (node_procs_blocked{{{NODE}}})", "{{node}}"),
                        description="Blocked by a disk or a network file system.",
                        width=HALF,
                    ),
                ],
            ),
        ],
        choice("node", "Node", "label_values(machine_cpu_cores, node)"),
    )
