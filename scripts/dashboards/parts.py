"""What dashboards are made of. Every query names its data source by uid, every panel has a unit and a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import logs, loki, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

# Units, so that dashboards import one module.
BYTES, BYTES_PER_SECOND = units.BytesIEC, units.BytesPerSecondIEC
CORES, COUNT, NUMBER = units.Short, units.Short, units.Short
DURATION, SECONDS = units.DurationSeconds, units.Seconds
PER_SECOND, RATIO, REQUESTS = units.CountsPerSecond, units.PercentUnit, units.RequestsPerSecond

TAG = "slipway"
PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="prometheus")
LOKI = models.DataSourceRef(type_val="loki", uid="loki")
JAEGER = models.DataSourceRef(type_val="jaeger", uid="jaeger")
# Probes are not users.
USERS = 'route!~"/health.*|/metrics"'
# Not Watchdog, which fires always: its severity is none.
FIRING = 'ALERTS{alertstate="firing", severity!="none"}'
# What several panels show.
FIRST_CERTIFICATE_ENDS = "min(certmanager_certificate_expiration_timestamp_seconds) - time()"
SINCE_BACKUP = "time() - max(backup_last_completed_timestamp > 0)"
SINCE_VERIFIED_BACKUP = "time() - max(backup_last_verified_timestamp > 0)"

# Three beside each other; four; all of it.
THIRD, QUARTER, HALF, WHOLE = 8, 6, 12, 24
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

Panel = Builder[models.Panel]


@dataclass(frozen=True)
class Colours:
    """The colour of a value, and from which values on it has another."""

    first: str = BLUE
    steps: Sequence[tuple[float, str]] = ()


NONE_IS_WELL, SOME_ARE_WELL = Colours(GREEN, [(1, RED)]), Colours(RED, [(1, GREEN)])
# About when the alerts of certificates and backups come.
CERTIFICATE_LEFT = Colours(RED, [(7 * 86400, YELLOW), (21 * 86400, GREEN)])
BACKUP_AGE = Colours(GREEN, [(26 * 3600, YELLOW), (50 * 3600, RED)])
BUDGET_LEFT = Colours(RED, [(0, YELLOW), (0.25, GREEN)])


@dataclass(frozen=True)
class Query:
    """An expression of PromQL, in which `[_]` is the window that fits the step, and how its series are named."""

    expression: str
    legend: str = ""


def graph(
    title: str,
    unit: str,
    *queries: Query,
    description: str = "",
    width: int = THIRD,
    stacked: bool = False,
    most: float | None = None,
) -> Panel:
    """Return lines over time, one for each series; `most` is where the axis ends."""
    panel = _timeseries(title, unit, PROMETHEUS, description, width, stacked)
    panel.line_width(1).show_points(common.VisibilityMode.NEVER)
    if most is not None:
        panel.max(most)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(_over_time(letter, query))
    return panel


def number(
    title: str,
    unit: str,
    expression: str,
    *,
    description: str = "",
    legend: str = "",
    colours: Colours = Colours(),
    width: int = QUARTER,
    decimals: int | None = None,
) -> Panel:
    """Return the value of now."""
    panel = (
        stat.Panel()
        .title(title)
        .unit(unit)
        .datasource(PROMETHEUS)
        .height(4)
        .span(width)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.AUTO)
        .orientation(common.VizOrientation.AUTO)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(thresholds(colours))
        .with_target(_now("A", Query(expression, legend)))
    )
    if description:
        panel.description(description)
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def listing(
    title: str,
    unit: str,
    expression: str,
    *,
    description: str = "",
    value: str = "Value",
    hidden: Sequence[str] = (),
    width: int = HALF,
) -> Panel:
    """Return a table with a line for each series of now; `value` is the heading of the last column."""
    away = dict.fromkeys(["Time", "__name__", *hidden], True)
    panel = (
        table.Panel()
        .title(title)
        .unit(unit)
        .datasource(PROMETHEUS)
        .height(8)
        .span(width)
        .show_header(True)
        .with_target(_now("A", Query(expression)).format(prometheus_models.PromQueryFormat.TABLE))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize", options={"excludeByName": away, "renameByName": {"Value": value}}
            )
        )
    )
    return panel.description(description) if description else panel


def lines(title: str, expression: str, *, description: str, width: int = WHOLE) -> Panel:
    """Return lines of logs, the newest first; `expression` is LogQL."""
    return (
        logs.Panel()
        .title(title)
        .description(description)
        .unit(NUMBER)
        .datasource(LOKI)
        .height(12)
        .span(width)
        .show_time(True)
        .wrap_log_message(True)
        .prettify_log_message(False)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
        .dedup_strategy(common.LogsDedupStrategy.NONE)
        .with_target(loki.Dataquery().ref_id("A").datasource(LOKI).expr(expression).query_type("range").max_lines(200))
    )


def log_graph(title: str, unit: str, *queries: Query, description: str = "", width: int = HALF) -> Panel:
    """Return lines over time that Loki counts."""
    panel = _timeseries(title, unit, LOKI, description, width, stacked=True)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = loki.Dataquery().ref_id(letter).datasource(LOKI).expr(query.expression).query_type("range")
        panel.with_target(target.legend_format(query.legend) if query.legend else target)
    return panel


class JaegerQuery(Builder[Any]):
    """A search for traces; the SDK has no type for it."""

    def __init__(self, service: str, **narrower: Any) -> None:
        self._data = {
            "refId": "A",
            "datasource": JAEGER.to_json(),
            "queryType": "search",
            "service": service,
            "limit": 20,
            **narrower,
        }

    def build(self) -> Any:
        from grafana_foundation_sdk.cog.runtime import UnknownDataquery

        return UnknownDataquery(self._data)


def traces(title: str, service: str, *, description: str, width: int = WHOLE, **narrower: Any) -> Panel:
    """Return a table of the newest traces that a service has a part in."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .unit(NUMBER)
        .datasource(JAEGER)
        .height(10)
        .span(width)
        .show_header(True)
        .with_target(JaegerQuery(service, **narrower))
    )


def _timeseries(
    title: str, unit: str, source: models.DataSourceRef, description: str, width: int, stacked: bool
) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(title)
        .unit(unit)
        .datasource(source)
        .height(8)
        .span(width)
        .min(0)
        .fill_opacity(40 if stacked else 10)
        .legend(legend())
        .tooltip(tooltip())
    )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    return panel.description(description) if description else panel


def promql(expression: str) -> str:
    """Return an expression on one line, its windows filled in."""
    return " ".join(expression.split()).replace("( ", "(").replace("[_", "[$__rate_interval")


def legend() -> common_builders.VizLegendOptions:
    """Return the names of the series, below the lines."""
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )


def tooltip() -> common_builders.VizTooltipOptions:
    """Return what is shown below the pointer: all series, the largest first."""
    return common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)


def thresholds(colours: Colours) -> builders.ThresholdsConfig:
    """Return colours by value."""
    listed = [models.Threshold(value=None, color=colours.first)]
    listed += [models.Threshold(value=value, color=color) for value, color in colours.steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(listed)


def choice(name: str, label: str, query: str) -> builders.QueryVariable:
    """Return a variable whose values are those of a label; all of them unless somebody chooses."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def text(name: str, label: str) -> builders.TextBoxVariable:
    """Return a variable that somebody types; empty at first."""
    return builders.TextBoxVariable(name).label(label).default_value("")


@dataclass(frozen=True)
class Row:
    """Panels below a heading. `needs` is what a service has to have for them."""

    title: str
    panels: Sequence[Panel]
    needs: str = ""


def board(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    *variables: Builder[models.VariableModel],
    hours: int = 6,
) -> models.Dashboard:
    """Return a dashboard; the ids of its panels are counted, their places follow from their widths."""
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .refresh("1m")
        .time(f"now-{hours}h", "now")
        .timezone(common.TimeZoneBrowser)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .annotation(
            builders.AnnotationQuery()
            .name("Alerts")
            .datasource(PROMETHEUS)
            .enable(True)
            .hide(False)
            .icon_color(RED)
            .expr(FIRING)
        )
        .link(
            builders.DashboardLink("Dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(False)
            .keep_time(True)
        )
    )
    for variable in variables:
        made.with_variable(variable)
    count = 0
    for row in rows:
        count += 1
        made.with_row(builders.Row(row.title).id(count))
        for panel in row.panels:
            count += 1
            panel.id(count)  # type: ignore[attr-defined]
            made.with_panel(panel)
    return made.build()


def _over_time(letter: str, query: Query) -> prometheus.Dataquery:
    return _target(letter, query).range()


def _now(letter: str, query: Query) -> prometheus.Dataquery:
    return _target(letter, query).instant()


def _target(letter: str, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).datasource(PROMETHEUS).expr(promql(query.expression))
    return target.legend_format(query.legend) if query.legend else target
