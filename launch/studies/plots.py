"""Plots of training studies from their rows."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gliomoe.finetune.studies.output import Row
from gliomoe.finetune.studies.plots import INK, STYLE, below, distinct, draw_lines

_WIDTH, _HEIGHT = 2.3, 2.0
"""Inches of a panel."""


def shots_figure(rows: Sequence[Row]) -> Figure:
    """Figures of every arm against shots, and below them the gains over the baseline.

    A column of panels for each measure, two rows for each cohort.
    """
    measures, cohorts, arms = (distinct(rows, key) for key in ("measure", "test", "arm"))
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
                    _panel(axis, own, measure, arms, k > 0)
                grid[i * len(kinds) + k][0].set_ylabel(f"{cohort}: {'gain' if k else 'value'}")
        for axis, measure in zip(grid[0], measures, strict=True):
            axis.set_title(measure)
        for axis in grid[-1]:
            axis.set_xlabel("labelled cases")
        below(figure, grid[0][0])
    return figure


def _panel(axis: Axes, rows: Sequence[Row], measure: str, arms: Sequence[str], gain: bool) -> None:
    """One measure on one cohort: values, or gains with the line of none."""
    own = [row for row in rows if row["measure"] in (measure, f"gain {measure}")]
    draw_lines(axis, own, "shots", "arm", arms)
    if gain:
        axis.axhline(0, color=INK, linewidth=0.8)
