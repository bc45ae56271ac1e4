"""Charts of the report as inline SVG whose ink follows the page's light or dark theme."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:  # older releases of matplotlib lack it
    from matplotlib.typing import RcKeyType

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette, distinct under colour blindness and on light and dark ground."""

_MARKERS = "osD^vP"
_DOTS = 30
"""Most points of a curve that are marked one by one."""

# Colours that no chart uses stand for the page's own and are replaced in the SVG.
_INK, _RULE = "#010203", "#040506"
STYLE: "dict[RcKeyType, str | float]" = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gliomoe",
    "font.size": 9,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Interval:
    """A measured value and its 95 % confidence interval; either bound may be unknown."""

    value: float
    low: float | None = None
    high: float | None = None


def curves(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> str:
    """Training curves side by side.

    Args:
        panels: Title → line name (a fold) → steps and values. A title that contains `Dice` gets
            the axis 0 to 1, any other an axis from 0.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6 * max(len(panels), 1), 2.9), layout="constrained")
        axes = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            for number, (name, (x, y)) in enumerate(lines.items()):
                colour, dots = PALETTE[number % len(PALETTE)], "." if len(x) <= _DOTS else ""
                axis.plot(x, y, color=colour, marker=dots, label=name)
            axis.set(title=title, xlabel="step", ylim=(0, 1) if "Dice" in title else (0, None))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes[-1].legend(fontsize=8)
        return _svg(figure, "Training curves: " + ", ".join(panels))


def comparison(evaluations: Mapping[str, Mapping[str, Interval]], measures: Sequence[str]) -> str:
    """One panel per measure, one row per evaluation: a point with its 95 % interval.

    Args:
        evaluations: Name → measure → interval; a measure that is missing leaves its row empty.
        measures: Which measures to draw, in order; all lie between 0 and 1.
    """
    names, columns = list(evaluations), min(len(measures), 4)
    rows = -(-len(measures) // columns)
    height = rows * (0.75 + 0.3 * len(names))
    with rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        figure = Figure(figsize=(9.2, height), layout=layout)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for axis, measure in zip(grid, measures, strict=False):
            _intervals(axis, measure, [evaluations[name].get(measure) for name in names])
            axis.set_yticks(range(len(names)), names)
        for axis in grid[len(measures) :]:
            axis.set_visible(False)
        return _svg(figure, "Measures with 95 % confidence intervals: " + ", ".join(measures))


def _intervals(axis: Axes, measure: str, intervals: Sequence[Interval | None]) -> None:
    """Points with whiskers, first evaluation on top; AUC panels mark chance."""
    for row, interval in enumerate(intervals):
        if interval is None:
            continue
        colour, marker = PALETTE[row % len(PALETTE)], _MARKERS[row % len(_MARKERS)]
        axis.plot(
            interval.value, row, color=colour, marker=marker, markersize=6, clip_on=False, zorder=3
        )
        if interval.low is not None and interval.high is not None:
            axis.plot([interval.low, interval.high], [row, row], color=colour)
    if measure.startswith("AUC"):
        axis.axvline(0.5, color=_INK, linewidth=0.8, linestyle=":")
    axis.set(title=measure, xlim=(0, 1), ylim=(len(intervals) - 0.5, -0.5))
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axis.grid(False, axis="y")
    axis.tick_params(length=0)


def _svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element that scales with the page and reads aloud."""
    target = io.StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(_INK, "currentColor").replace(_RULE, "var(--rule)")
    text = re.sub(r"(font: [^;\"]*?px )[^;\"]*", r"\1var(--sans)", text)
    # Several figures share a page: their ids must not meet.
    prefix = re.sub(r"[^a-z]+", "-", description.lower())
    text = re.sub(r'(id="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return re.sub(r'width="[^"]*pt"', f'role="img" aria-label="{description}"', text, count=1)
