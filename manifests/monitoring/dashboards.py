"""Writes each page in dashboards/*.yaml as a Grafana dashboard beside it: ``make dashboards``.

A page has variables, and rows of panels; a panel has queries, each with what to call its lines. A test runs every query
against a Prometheus that holds metrics of a real run.
"""

from pathlib import Path

import yaml
from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from pydantic import BaseModel, ConfigDict

PAGES = sorted((Path(__file__).parent / "dashboards").glob("*.yaml"))
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT, _WIDTH = 8, 8  # of 24 columns


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Query(_Strict):
    """PromQL, and what a line is called: labels stand in double braces."""

    expr: str
    legend: str


class Panel(_Strict):
    """One diagram.

    Attributes:
        title: what it shows.
        unit: Grafana's id of the unit.
        queries: what is drawn.
        about: what to look for; empty when the title says it.
        stacked: whether the lines add up to a whole.
        heat: whether the series are a histogram's buckets.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    stacked: bool = False
    heat: bool = False


class Row(_Strict):
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


class Variable(_Strict):
    """A choice at the top: the values of a label of some series."""

    name: str
    series: str
    label: str
    several: bool = False


class Page(_Strict):
    """A dashboard."""

    uid: str
    title: str
    about: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]


def page(file: Path) -> Page:
    """Read a page."""
    return Page.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def as_grafana(page: Page) -> str:
    """The page in Grafana's own form, as JSON."""
    made = dashboard.Dashboard(page.title).uid(page.uid).description(page.about).tags(["sluiceway"])
    made.time("now-6h", "now").refresh("30s").timezone("browser").readonly()
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for variable in page.variables:
        choice = dashboard.QueryVariable(variable.name).label(variable.name).datasource(_SOURCE)
        choice.query(f"label_values({variable.series}, {variable.label})")
        choice.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        if variable.several:
            choice.multi(True).include_all(True).all_value(".*")
        made.with_variable(choice)
    numbers = iter(range(1, 1000))
    for row in page.rows:
        made.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made.with_panel(_diagram(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _diagram(panel: Panel) -> timeseries.Panel | heatmap.Panel:
    diagram = heatmap.Panel().calculate(False) if panel.heat else timeseries.Panel()
    diagram.title(panel.title).unit(panel.unit).datasource(_SOURCE).height(_HEIGHT).span(_WIDTH)
    if panel.about:
        diagram.description(panel.about)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        diagram.with_target(target.datasource(_SOURCE).range().format(_format(panel)))
    if isinstance(diagram, timeseries.Panel):
        legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        diagram.min(0).fill_opacity(8).legend(legend.show_legend(True))
        if panel.stacked:
            diagram.max(1).fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return diagram


def _format(panel: Panel) -> PromQueryFormat:
    return PromQueryFormat.HEATMAP if panel.heat else PromQueryFormat.TIME_SERIES


def main() -> None:
    """Write every page."""
    for file in PAGES:
        file.with_suffix(".json").write_text(as_grafana(page(file)), encoding="utf-8")


if __name__ == "__main__":
    main()
