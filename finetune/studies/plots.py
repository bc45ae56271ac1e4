"""Plots of studies from their rows, in one style: a panel for each measure.

Notable: rows without a `value` leave a gap. The bars are 95 % intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gliomoe.finetune.report.figures import PALETTE
from gliomoe.finetune.report.figures import STYLE as REPORT_STYLE
from gliomoe.finetune.studies.output import Row

if TYPE_CHECKING:  # older releases of matplotlib lack it
    from matplotlib.typing import RcKeyType

INK, RULE = "#24292f", "#d0d7de"
MARKERS = "osD^vP"
STYLE: "dict[RcKeyType, str | float]" = {
    **REPORT_STYLE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": RULE,
    "grid.color": RULE,
    "axes.titlesize": 9,
    "axes.axisbelow": True,
}
_COLUMNS = 4
_WIDTH, _HEIGHT = 2.7, 2.6
"""Inches of a panel."""


@contextmanager
def panels(
    titles: Sequence[str],
    height: float = _HEIGHT,
    width: float = _WIDTH,
    share: bool = False,
    columns: int = _COLUMNS,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a panel for each title, in the style of studies.

    Args:
        titles: Of the panels, in order.
        height: Of a panel, in inches.
        width: Of a panel, in inches.
        share: Whether panels side by side share their y axis.
        columns: Most panels side by side.
    """
    columns = min(len(titles), columns)
    rows = -(-len(titles) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(width * columns + 0.8, height * rows + 0.5), layout="constrained")
        grid = figure.subplots(
            rows, columns, squeeze=False, sharey="row" if share else "none"
        ).ravel()
        for axis in grid[len(titles) :]:
            axis.set_visible(False)
        axes = list(grid[: len(titles)])
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title)
        yield figure, axes


def colours(names: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """Name → colour and marker."""
    return {
        name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)
    }


def lines(rows: Sequence[Row], x: str, line: str, xlabel: str) -> Figure:
    """Figures against a column, a line for each value of another, evenly spaced in their order.

    Args:
        rows: Of a study.
        x: Column along the x axis: names, or numbers in their order.
        line: Column that tells the lines apart.
        xlabel: Of the x axis.
    """
    titles, names = measured(rows), distinct(rows, line)
    with panels(titles) as (figure, axes):
        for axis, title in zip(axes, titles, strict=True):
            of_measure = [row for row in rows if row["measure"] == title]
            draw_lines(axis, of_measure, x, line, names)
            axis.set_xlabel(xlabel)
        below(figure, *axes)
    return figure


def draw_lines(
    axis: Axes,
    rows: Sequence[Row],
    x: str,
    line: str,
    names: Sequence[str],
    joined: bool = True,
) -> None:
    """The rows of one measure in one panel; its y axis is 0 to 1 for Dice and AUC.

    Args:
        axis: The panel.
        rows: Of the measure.
        x: Column along the x axis.
        line: Column that tells the lines apart.
        names: Its values, in the order of their colours.
        joined: Whether the points are; those of names without an order are not.
    """
    places = distinct(rows, x)
    for number, (name, (colour, marker)) in enumerate(colours(names).items()):
        own = [row for row in rows if row[line] == name and row["value"] is not None]
        beside = 0.08 * (number - (len(names) - 1) / 2)
        at = [places.index(row[x]) + beside for row in own]
        axis.plot(at, [row["value"] for row in own], color=colour, marker=marker, markersize=4,
                  label=name, clip_on=False, linestyle="-" if joined else "")  # fmt: skip
        for place, row in zip(at, own, strict=True):
            if row["low"] is not None:
                axis.plot([place, place], [row["low"], row["high"]], color=colour, linewidth=1)
    axis.set_xticks(range(len(places)), [str(place) for place in places])
    axis.set_xlim(-0.4, len(places) - 0.6)
    axis.grid(False, axis="x")
    if rows:
        _scale(axis, rows[0]["measure"], "y")


def points(rows: Sequence[Row], name: str, reference: bool = False) -> Figure:
    """A line for each value of a column with a point and its interval, first on top.

    Args:
        rows: Of a study.
        name: Column that names the lines.
        reference: Whether the first line's value is drawn through all.
    """
    titles, names = measured(rows), distinct(rows, name)
    with panels(titles, height=0.5 + 0.19 * len(names), width=2.4, share=True) as (figure, axes):
        for axis, title in zip(axes, titles, strict=True):
            for row in rows:
                if row["measure"] != title or row["value"] is None:
                    continue
                place = names.index(row[name])
                axis.plot(row["value"], place, "o", color=PALETTE[0], markersize=4, clip_on=False)
                if row["low"] is not None:
                    axis.plot([row["low"], row["high"]], [place, place], color=PALETTE[0])
                if reference and place == 0:
                    axis.axvline(row["value"], color=PALETTE[0], linewidth=0.8, linestyle="--")
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            _scale(axis, title, "x")
    return figure


def measured(rows: Sequence[Row]) -> list[str]:
    """Measures of which some row has a value."""
    return distinct([row for row in rows if row["value"] is not None], "measure")


def distinct(rows: Sequence[Row], column: str) -> list[Any]:
    """Values of a column in order of first appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def below(figure: Figure, *axes: Axes) -> None:
    """One legend of these panels below all; none for a single line."""
    shown: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True)) | shown
    if len(shown) > 1:
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside lower center",
            ncols=min(len(shown), 4),
        )


def _scale(axis: Axes, measure: str, along: str) -> None:
    """Dice and AUC from 0 to 1, and the AUC of chance."""
    if not measure.startswith(("Dice", "AUC")):
        return
    axis.set(**{f"{along}lim": (0, 1)})
    ticks = axis.set_yticks if along == "y" else axis.set_xticks
    ticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    if measure.startswith("AUC"):
        chance = axis.axhline if along == "y" else axis.axvline
        chance(0.5, color=INK, linewidth=0.8, linestyle=":")
