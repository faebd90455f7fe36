"""Pods, volumes and the control plane."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from scripts.dashboards.parts import (
    BYTES,
    BYTES_PER_SECOND,
    CORES,
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
    choice,
    graph,
    listing,
    number,
)

SPACE = 'namespace=~"$namespace"'
# Pods as a whole: every runtime tells of them, of their containers only some.
PODS = f'{SPACE}, pod!="", container=""'


def dashboard() -> models.Dashboard:
    """Return the dashboard."""
    return board(
        "kubernetes",
        "Kubernetes",
        "Pods and what they use, what was restarted or killed, volumes, the API server and the kubelets.",
        [
            Row(
                "Now",
                [
                    number(
                        "Kubelets that answer",
                        COUNT,
                        'count(up{job="kubelet"} == 1) or vector(0)',
                        colours=SOME_ARE_WELL,
                    ),
                    number("Pods", COUNT, "sum(kubelet_running_pods)"),
                    number(
                        "Starts of containers in the window",
                        COUNT,
                        f"sum(changes(container_start_time_seconds{{{SPACE}}}[$__range])) or vector(0)",
                        description="Of pods that are still there.",
                        colours=Colours(GREEN, [(1, YELLOW), (10, RED)]),
                    ),
                    number(
                        "Killed for memory in the window",
                        COUNT,
                        f"sum(increase(container_oom_events_total{{{SPACE}}}[$__range])) or vector(0)",
                        colours=NONE_IS_WELL,
                        decimals=0,
                    ),
                ],
            ),
            Row(
                "Pods",
                [
                    graph(
                        "CPU by namespace",
                        CORES,
                        Query(
                            f"sum by (namespace) (rate(container_cpu_usage_seconds_total{{{PODS}}}[_]))",
                            "{{namespace}}",
                        ),
                        description="In cores.",
                        stacked=True,
                        width=HALF,
                    ),
                    graph(
                        "Memory by namespace",
                        BYTES,
                        Query(f"sum by (namespace) (container_memory_working_set_bytes{{{PODS}}})", "{{namespace}}"),
                        stacked=True,
                        width=HALF,
                    ),
                    graph(
                        "CPU, the ten that use most",
                        CORES,
                        Query(
                            f"topk(10, sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{{{PODS}}}[_])))",
                            "{{namespace}}/{{pod}}",
                        ),
                        width=HALF,
                    ),
                    graph(
                        "Memory of the limit, the ten that are nearest to it",
                        RATIO,
                        Query(
                            f"""topk(10, max by (namespace, pod) (container_memory_working_set_bytes
                            {{{PODS}}}
                            / (container_spec_memory_limit_bytes{{{PODS}}} > 0)))""",
                            "{{namespace}}/{{pod}}",
                        ),
                        width=HALF,
                    ),
                    graph(
                        "Throttled",
                        RATIO,
                        Query(
                            f"""topk(10, sum by (namespace, pod) (rate(
                            container_cpu_cfs_throttled_periods_total{{{PODS}}}[_]))
                            / sum by (namespace, pod) (rate(container_cpu_cfs_periods_total
                            {{{PODS}}}[_])))""",
                            "{{namespace}}/{{pod}}",
                        ),
                        description="Share of the periods in which the limit of CPU was reached.",
                        most=1,
                    ),
                    graph(
                        "Network in",
                        BYTES_PER_SECOND,
                        Query(
                            f'sum by (namespace) (rate(container_network_receive_bytes_total{{{SPACE}, pod!=""}}[_]))',
                            "{{namespace}}",
                        ),
                    ),
                    graph(
                        "Readiness checks that failed",
                        PER_SECOND,
                        Query(
                            f"""sum by (namespace, pod) (rate(prober_probe_total
                            {{{SPACE}, probe_type="Readiness", result="failed"}}[_])) > 0
                            or vector(0)""",
                            "{{namespace}}/{{pod}}",
                        ),
                        description="A pod that is not ready gets no requests.",
                    ),
                ],
            ),
            Row(
                "Volumes",
                [
                    graph(
                        "Used",
                        RATIO,
                        Query(
                            f"""max by (namespace, persistentvolumeclaim)
                            (1 - kubelet_volume_stats_available_bytes{{{SPACE}}}
                            / (kubelet_volume_stats_capacity_bytes{{{SPACE}}} > 0))""",
                            "{{namespace}}/{{persistentvolumeclaim}}",
                        ),
                        most=1,
                        width=HALF,
                    ),
                    listing(
                        "Left",
                        BYTES,
                        f"""min by (namespace, persistentvolumeclaim) (kubelet_volume_stats_available_bytes
                        {{{SPACE}}})""",
                        value="bytes left",
                    ),
                ],
            ),
            Row(
                "Control plane",
                [
                    graph(
                        "Requests to the API server",
                        REQUESTS,
                        Query("sum by (verb) (rate(apiserver_request_total[_]))", "{{verb}}"),
                        stacked=True,
                    ),
                    graph(
                        "Its errors",
                        RATIO,
                        Query(
                            """(sum(rate(apiserver_request_total{code=~"5.."}[_])) or vector(0))
                            / sum(rate(apiserver_request_total[_]))""",
                            "5xx",
                        ),
                    ),
                    graph(
                        "Requests that it works on",
                        COUNT,
                        Query("sum by (request_kind) (apiserver_current_inflight_requests)", "{{request_kind}}"),
                    ),
                    graph("Size of its storage", BYTES, Query("max(apiserver_storage_size_bytes)", "etcd")),
                    graph(
                        "Kubelets: time to look at all pods, p99",
                        SECONDS,
                        Query(
                            "histogram_quantile(0.99, sum by (node, le) "
                            "(rate(kubelet_pleg_relist_duration_seconds_bucket[_])))",
                            "{{node}}",
                        ),
                        description="Long: the container runtime is slow.",
                    ),
                    graph(
                        "Kubelets: calls of the runtime that failed",
                        PER_SECOND,
                        Query(
                            "sum by (node) (rate(kubelet_runtime_operations_errors_total[_])) or vector(0)",
                            "{{node}}",
                        ),
                    ),
                ],
            ),
        ],
        choice("namespace", "Namespace", "label_values(container_memory_working_set_bytes, namespace)"),
    )
