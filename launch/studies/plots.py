"""Plots of training studies from their rows."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from gliomoe.finetune.studies.output import Row
from gliomoe.finetune.studies.plots import INK, STYLE, below, colours, distinct, draw_lines

_WIDTH, _HEIGHT = 2.3, 2.0
"""Inches of a panel."""


def shots_figure(rows: Sequence[Row]) -> Figure:
    """Figures of every arm against shots, and below them the gains over the baseline."""
    return _curves(rows, "shots", "arm", "labelled cases")


def sizes_figure(rows: Sequence[Row]) -> Figure:
    """Figures against the number of pretraining studies, and below them the gains over none."""
    named = [{**row, "line": f"{row['shots']} labelled cases"} for row in rows]
    return _curves(named, "pretraining_studies", "line", "pretraining studies")


def forest_figure(rows: Sequence[Row]) -> Figure:
    """Differences to the baseline as a forest plot.

    A panel for each measure, a line for each arm and number of shots, a colour for each cohort.
    """
    measures = distinct(rows, "measure")
    rows = [row for row in rows if row.get("difference") is not None]
    several = len(distinct(rows, "shots")) > 1
    rows = [
        {**row, "line": f"{row['arm']}, {row['shots']} shots" if several else row["arm"]}
        for row in rows
    ]
    cohorts, lines = (distinct(rows, key) for key in ("test", "line"))
    with rc_context(STYLE):
        size = (_WIDTH * len(measures) + 1.6, 0.28 * len(lines) + 1.1)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
        for axis, measure in zip(axes, measures, strict=True):
            axis.set_title(measure)
            for number, (cohort, (colour, marker)) in enumerate(colours(cohorts).items()):
                own = [r for r in rows if r["measure"] == measure and r["test"] == cohort]
                beside = 0.22 * (number - (len(cohorts) - 1) / 2)
                at = [lines.index(row["line"]) + beside for row in own]
                axis.plot([row["difference"] for row in own], at, marker, color=colour,
                          markersize=4, label=f"cohort {cohort}")  # fmt: skip
                for place, row in zip(at, own, strict=True):
                    if row["difference_low"] is not None:
                        ends = [row["difference_low"], row["difference_high"]]
                        axis.plot(ends, [place, place], color=colour, linewidth=1)
            axis.axvline(0, color=INK, linewidth=0.8)
            axis.set_yticks(range(len(lines)), lines)
            axis.set_ylim(len(lines) - 0.5, -0.5)
            axis.set_xlabel("difference")
            axis.tick_params(axis="y", length=0)
            axis.grid(False, axis="y")
        below(figure, *axes)
    return figure


def _curves(rows: Sequence[Row], x: str, line: str, xlabel: str) -> Figure:
    """A column of panels for each measure, values and gains below each other for each cohort."""
    measures, cohorts, lines = (distinct(rows, key) for key in ("measure", "test", line))
    gains = [
        {
            **row,
            "measure": f"gain {row['measure']}",
            "value": row["difference"],
            "low": row["difference_low"],
            "high": row["difference_high"],
        }
        for row in rows
        if row.get("difference") is not None
    ]
    kinds = [rows, gains] if gains else [rows]
    with rc_context(STYLE):
        size = (_WIDTH * len(measures) + 0.8, _HEIGHT * len(cohorts) * len(kinds) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(cohorts) * len(kinds), len(measures), squeeze=False)
        for i, cohort in enumerate(cohorts):
            for k, kind in enumerate(kinds):
                own = [row for row in kind if row["test"] == cohort]
                for axis, measure in zip(grid[i * len(kinds) + k], measures, strict=True):
                    shown = [r for r in own if r["measure"] in (measure, f"gain {measure}")]
                    draw_lines(axis, shown, x, line, lines)
                    for drawn in axis.lines:  # markers over an edge push no panel aside
                        drawn.set_in_layout(False)
                    if k:
                        axis.axhline(0, color=INK, linewidth=0.8)
                grid[i * len(kinds) + k][0].set_ylabel(f"{cohort}: {'gain' if k else 'value'}")
        for axis, measure in zip(grid[0], measures, strict=True):
            axis.set_title(measure)
        for axis in grid[-1]:
            axis.set_xlabel(xlabel)
        below(figure, *grid[0])
    return figure
