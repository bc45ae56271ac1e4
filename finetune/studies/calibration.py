"""How far probabilities of markers can be taken at their word, before and after temperature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.paired import wilcoxon_test
from gliomoe.finetune.metrics.reliability import Forecasts
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.finetune.report.figures import PALETTE
from gliomoe.finetune.studies.evaluations import (
    Evaluated,
    EvaluationStudyConfig,
    open_evaluations,
    settings,
)
from gliomoe.finetune.studies.output import Row, write_study
from gliomoe.finetune.studies.plots import INK, below, panels
from gliomoe.finetune.studies.scores import difference

MEASURES = {"log_loss": "log loss", "brier": "Brier score", "ece": "ECE"}
"""Key of `metrics.json` → measure."""


def study_calibration(config: EvaluationStudyConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Scores of probabilities before and after temperature scaling, and reliability diagrams.

    Differences are after minus before, paired by case; ECE is no mean over cases and has none.

    Args:
        config: Evaluations.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: If an evaluation cannot be read, or none measured a marker.
    """
    evaluations = open_evaluations(config.evaluations)
    rows = [
        row
        for one in evaluations
        for task, found in one.metrics["markers"].items()
        if found["cases"]
        for row in calibration_rows(one, task)
    ]
    if not rows:
        folders = ", ".join(map(str, config.evaluations))
        raise UsageError(f"{folders}: no marker was measured")
    by = ["run", "marker", "temperature"]
    about = settings(config, evaluations)
    figure = plot(evaluations)
    return write_study(config.out, "calibration", by, rows, about, figure, provenance)


def calibration_rows(one: Evaluated, task: str) -> list[Row]:
    """Rows of one marker before scaling and, where a temperature was fitted, after."""
    found = one.metrics["markers"][task]
    fitted = found["calibration"]
    tests = {} if fitted["reason"] else _tests(one, task)
    rows = []
    for when in ("before",) if fitted["reason"] else ("before", "after"):
        by = {"run": one.name, "marker": TASK_NAMES[task], "temperature": when}
        for key, measure in MEASURES.items():
            figure = fitted[when][key]
            low, high = figure["interval"] or (None, None)
            rows.append(
                {
                    **by,
                    "measure": measure,
                    "cases": found["cases"],
                    **{"value": figure["value"], "low": low, "high": high},
                    **difference(tests.get(key) if when == "after" else None),
                    "value_of_temperature": fitted["temperature"] if when == "after" else 1.0,
                    "reason": fitted["reason"] and f"temperature 1: {fitted['reason']}",
                }
            )
    return rows


def _tests(one: Evaluated, task: str) -> dict[str, Any]:
    """Log loss and Brier score → after minus before, paired."""
    (label, raw), (_, scaled) = one.marker(task, raw=True), one.marker(task)
    if task == "grade":
        index = np.array([GRADES.index(grade) for grade in label], int)
        before, after = Forecasts.of_classes(index, raw), Forecasts.of_classes(index, scaled)
    else:
        before = Forecasts.of_binary(label, raw[:, 0])
        after = Forecasts.of_binary(label, scaled[:, 0])
    return {
        "log_loss": wilcoxon_test(after.log_loss, before.log_loss),
        "brier": wilcoxon_test(after.brier, before.brier),
    }


def plot(evaluations: Sequence[Evaluated]) -> Figure:
    """A reliability diagram for each marker of each run; dots grow with their number of cases."""
    shown = [
        (one, task, found["calibration"])
        for one in evaluations
        for task, found in one.metrics["markers"].items()
        if found["cases"]
    ]
    tasks = len({task for _, task, _ in shown})
    titles = [f"{one.name}\n{TASK_NAMES[task]}: {_told(fitted)}" for one, task, fitted in shown]
    with panels(titles, width=2.6, height=2.8, columns=min(tasks, 4)) as (figure, axes):
        for axis, (_, _, fitted) in zip(axes, shown, strict=True):
            axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
            _reliability(axis, fitted["before"], "before", "#8c959f", "s")
            if not fitted["reason"]:
                _reliability(axis, fitted["after"], "after", PALETTE[0], "o")
            axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="predicted", ylabel="observed")
        below(figure, *axes)
    return figure


def _told(fitted: dict[str, Any]) -> str:
    """ECE before and, if a temperature was fitted, after."""
    before, after = (fitted[when]["ece"]["value"] for when in ("before", "after"))
    if fitted["reason"]:
        return f"ECE {before:.2f}"
    return f"ECE {before:.2f} → {after:.2f}, T = {fitted['temperature']:.2f}"


def _reliability(axis: Axes, scores: dict[str, Any], label: str, colour: str, marker: str) -> None:
    bins = [b for b in scores["reliability"] if b["count"]]
    x, y = [b["predicted"] for b in bins], [b["observed"] for b in bins]
    axis.plot(x, y, color=colour, linewidth=1)
    axis.scatter(x, y, s=[12 + 60 * b["count"] / sum(c["count"] for c in bins) for b in bins],
                 color=colour, marker=marker, label=f"{label} scaling", zorder=3)  # fmt: skip
