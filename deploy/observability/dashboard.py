"""dashboard.yaml made into Grafana's JSON, by Grafana's own builders: the panels' common look is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final, TypeVar

import yaml
from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shape
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PANELS: Final = Path(__file__).with_name("dashboard.yaml")
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, AMBER, RED, BLUE = "semi-dark-green", "semi-dark-orange", "semi-dark-red", "semi-dark-blue"
COLOURS: Final = {
    GREEN: r"^(OK|2\d\d|2xx|granted|sent|new)$",
    BLUE: r"^3(xx|\d\d)$",
    AMBER: r"^(4xx|4\d\d|user_\w+|key_\w+|QUOTA_EXHAUSTED|RATE_LIMITED)$",
    RED: r"^(5xx|5\d\d|UNAVAILABLE|INTERNAL|undecided|failed)$",
}
"""What means the same has the same colour in every graph."""

Entry = Mapping[str, Any]
Drawn = stat.Panel | timeseries.Panel | heatmap.Panel | statetimeline.Panel
P = TypeVar("P", stat.Panel, timeseries.Panel, heatmap.Panel, statetimeline.Panel)


def dashboard() -> model.Dashboard:
    """All of it, as Grafana's model."""
    source = yaml.safe_load(PANELS.read_text(encoding="utf-8"))
    made = (
        build.Dashboard("Signgate")
        .uid("signgate")
        .tags(["signgate"])
        .time("now-1h", "now")
        .refresh("15s")
        .timezone("browser")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for panel in panels(source["overview"]):
        made = made.with_panel(panel)
    for title, entries in source["rows"].items():
        made = made.with_row(build.Row(title))
        for panel in panels(entries):
            made = made.with_panel(panel)
    found = made.build()
    for number, one in enumerate(found.panels or ()):
        one.id_val = number + 1
    return found


def written() -> str:
    """The same as JSON."""
    return JSONEncoder(sort_keys=True, indent=1).encode(dashboard()) + "\n"


def panels(entries: Iterable[Entry]) -> Iterator[Builder[model.Panel]]:
    """The panels of a row. Raises `KeyError` for a panel of no known kind."""
    for entry in entries:
        kind = next(iter(entry))
        yield KINDS[kind](entry, entry[kind])


def queries(entry: Entry) -> dict[str, str]:
    """A panel's expressions, by legend."""
    if "line" in entry:
        return {"": entry["line"]}
    if "of" in entry:
        return {"{{le}}": f"sum by (le) (rate({entry['of']}[$__rate_interval]))"}
    if "quantiles" in entry:
        return dict(_quantiles(**entry["quantiles"]))
    return dict(entry["lines"])


def _quantiles(
    of: str, by: Iterable[str] = (), levels: Iterable[float] = (0.5, 0.95, 0.99)
) -> Iterator[tuple[str, str]]:
    series = "".join(f"{{{{{label}}}}} " for label in by)
    for level in levels:
        rates = f"sum by ({', '.join(['le', *by])}) (rate({of}[$__rate_interval]))"
        yield f"{series}p{level * 100:g}", f"histogram_quantile({level}, {rates})"


def _tile(entry: Entry, title: str) -> stat.Panel:
    panel = _common(stat.Panel(), entry, title).span(4).height(4).no_value("-")
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.graph_mode(shape.BigValueGraphMode.AREA).color_mode(shape.BigValueColorMode.VALUE)
    if "bad" in entry:
        return panel.thresholds(_thresholds(entry))
    return panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(BLUE))


def _graph(entry: Entry, title: str) -> timeseries.Panel:
    stacked = entry.get("stacked", False)
    tooltip = common.VizTooltipOptions().mode(shape.TooltipDisplayMode.MULTI)
    panel = (
        _common(timeseries.Panel(), entry, title)
        .min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 10)
        .show_points(shape.VisibilityMode.NEVER)
        .tooltip(tooltip.sort(shape.SortOrder.DESCENDING))
        .legend(common.VizLegendOptions().show_legend(True).placement(shape.LegendPlacement.BOTTOM))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shape.StackingMode.NORMAL))
        for colour, names in COLOURS.items():
            fixed = model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
            panel = panel.override_by_regexp(f"/{names}/", [fixed])
    if "bad" in entry:
        dashed = common.GraphThresholdsStyleConfig().mode(shape.GraphTresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(entry)).thresholds_style(dashed)
    return panel


def _spread(entry: Entry, title: str) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    axis = heatmap.YAxisConfig().unit(entry["unit"])
    return _common(heatmap.Panel(), entry, title).color(colours).y_axis(axis).hide_legend()


def _states(entry: Entry, title: str) -> statetimeline.Panel:
    words = {"0": ("down", RED), "1": ("well", GREEN)}
    mapped = {
        value: model.ValueMappingResult(text=text, color=colour) for value, (text, colour) in words.items()
    }
    return (
        _common(statetimeline.Panel(), entry, title)
        .span(24 if len(entry["lines"]) > 1 else 8)
        .mappings([model.ValueMap(options=mapped)])
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .show_value(shape.VisibilityMode.NEVER)
        .fill_opacity(70)
        .row_height(0.8)
        .legend(common.VizLegendOptions().show_legend(False))
    )


KINDS: Final[Mapping[str, Callable[[Entry, str], Builder[model.Panel]]]] = {
    "tile": _tile,
    "graph": _graph,
    "spread": _spread,
    "states": _states,
}


def _common(panel: P, entry: Entry, title: str) -> P:
    panel = panel.title(title).description(entry.get("text", "")).unit(entry.get("unit", "none"))
    panel = panel.datasource(SOURCE).span(8).height(8)
    for letter, (legend, expr) in zip(ascii_uppercase, queries(entry).items(), strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend).datasource(SOURCE)
        panel = panel.with_target(query.format(PromQueryFormat.HEATMAP) if "of" in entry else query)
    return panel


def _thresholds(entry: Entry) -> build.ThresholdsConfig:
    steps = [(None, GREEN), (entry["warn"], AMBER), (entry["bad"], RED)]
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=colour) for value, colour in steps])
    )
