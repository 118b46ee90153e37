"""Writes the dashboards that Grafana is provisioned with: `python docker/grafana/dashboards.py`.

The JSON beside this file is what is served and is never edited by hand; tests/test_monitoring.py
holds that the two agree, and executes every query against a Prometheus that scrapes a service.
"""

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import CLINICAL, MODEL, SERVICE, Panel

__all__ = ["FOLDER", "written"]

FOLDER = Path(__file__).parent / "dashboards"
_SOURCE = model.DataSourceRef(type_val="prometheus", uid="prometheus")


def written() -> dict[str, str]:
    """Give the file name of each dashboard and its JSON."""
    window = build.CustomVariable("window").label("Counted over").values("1h,6h,1d,7d,30d")
    # Exams are a handful a day and room: over minutes a rate would be noise, or nothing.
    window = window.current(model.VariableOption(selected=True, text="1d", value="1d"))
    of_cases = [_variable(name) for name in ("task", "device", "operating_point")]
    boards = {
        "service": _board("Service", "now-6h", SERVICE),
        "clinical": _board("Clinical", "now-30d", CLINICAL, window, *of_cases),
        "model": _board("Model", "now-7d", MODEL),
    }
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"
        for name, board in boards.items()
    }


def _board(
    name: str, since: str, panels: Sequence[str | Panel], *variables: build.QueryVariable
) -> build.Dashboard:
    board = build.Dashboard(f"Endo-CLIP: {name}").uid(f"endo-clip-{name.lower()}")
    board = board.description("Research use only. Figures: docs/metrics.md.").tags(["endo-clip"])
    board = board.time(since, "now").refresh("1m").readonly().timezone("browser")
    board = board.tooltip(model.DashboardCursorSync.CROSSHAIR)
    for variable in (_variable("instance"), *variables):
        board = board.with_variable(variable)
    for panel in panels:
        if isinstance(panel, str):
            board = board.with_row(build.Row(panel))
        else:
            board = board.with_panel(_drawn(panel))
    return board


def _variable(label: str) -> build.QueryVariable:
    variable = build.QueryVariable(label).label(label.replace("_", " ").capitalize())
    variable = variable.query(f"label_values(endoclip_patient_decisions_total, {label})")
    variable = variable.datasource(_SOURCE).multi(True).include_all(True).all_value(".*")
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).current(everything)


def _drawn(panel: Panel) -> timeseries.Panel | table.Panel:
    as_table = panel.unit == "none"
    drawn = table.Panel().span(12).height(6) if as_table else _lines(panel)
    drawn = drawn.title(panel.title).unit(panel.unit).description(panel.about).datasource(_SOURCE)
    for number, (name, expression) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(expression).ref_id("ABCDEF"[number])
        if as_table:
            target = target.instant().format(PromQueryFormat.TABLE)
        else:
            target = target.range().legend_format(name)
        drawn = drawn.with_target(target)
    return drawn


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    legend = legend.display_mode(values.LegendDisplayMode.LIST)
    legend = legend.placement(values.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI)
    tooltip = tooltip.sort(values.SortOrder.DESCENDING)  # of twenty outcomes most are 0
    drawn = timeseries.Panel().legend(legend).tooltip(tooltip).min(0).fill_opacity(8)
    drawn = drawn.span(8).height(8)
    if panel.fires_at is not None:
        scale = common.ScaleDistributionConfig().type(values.ScaleDistribution.LOG).log(10)
        line = common.GraphThresholdsStyleConfig().mode(values.GraphTresholdsStyleMode.DASHED)
        steps = [
            model.Threshold(value=None, color="transparent"),
            model.Threshold(value=panel.fires_at, color="red"),
        ]
        limits = build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
        drawn = drawn.min(1).scale_distribution(scale).thresholds(limits).thresholds_style(line)
    return drawn.max(1) if panel.unit == "percentunit" else drawn


if __name__ == "__main__":
    for file, text in written().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
