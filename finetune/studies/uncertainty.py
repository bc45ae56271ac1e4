"""Does a model know when it is wrong? Score of the cases left when the least sure are referred.

From written evaluations: of an ensemble, of one fold, with Monte Carlo dropout, side by side.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.evaluation.figures import confidence
from gliomoe.finetune.metrics.intervals import percentile_interval, resample
from gliomoe.finetune.metrics.referral import coverage_risk, referred
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.finetune.studies.evaluations import (
    Evaluated,
    EvaluationStudyConfig,
    open_evaluations,
    settings,
)
from gliomoe.finetune.studies.output import Row, write_study
from gliomoe.finetune.studies.plots import INK, below, colours, distinct, panels
from gliomoe.finetune.studies.scores import ends

SHARES = (0.0, 0.1, 0.2, 0.5)
"""Parts of the cases that are referred, of which there are rows."""

SEG = "Dice"


def study_uncertainty(config: EvaluationStudyConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Score against the part of cases referred, AURC, and what chance and foresight would give.

    Differences are those from no referral, and of AURC from chance; their intervals resample cases.

    Args:
        config: Evaluations.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: If an evaluation cannot be read, or has nothing to judge.
    """
    evaluations = open_evaluations(config.evaluations)
    judged = [
        (one.name, task, *risk_and_confidence(one, task))
        for one in evaluations
        for task in one.metrics["uncertainty"]
    ]
    if not judged:
        folders = ", ".join(map(str, config.evaluations))
        raise UsageError(f"{folders}: neither a segmentation nor a marker was measured")
    rows = [row for name, task, *values in judged for row in referral_rows(name, task, *values)]
    figure = plot(judged)
    about = settings(config, evaluations)
    return write_study(config.out, "uncertainty", ["run", "task"], rows, about, figure, provenance)


def risk_and_confidence(one: Evaluated, task: str) -> tuple[np.ndarray, np.ndarray]:
    """[n] risk and confidence of the cases that the evaluation judged, as it has them."""
    if task == "seg":
        dice, doubt = one.numbers("mean_dice"), one.numbers("uncertainty")
        known = ~np.isnan(dice)
        return 1 - dice[known], -doubt[known]
    label, probability = one.marker(task)
    called = one.numbers(f"{task}_called")[~np.isnan(one.numbers(f"{task}_label"))]
    threshold = one.metrics["markers"][task].get("threshold")
    return (called != label).astype(float), confidence(probability, threshold)


def referral_rows(run: str, task: str, risk: np.ndarray, sure: np.ndarray) -> list[Row]:
    """The score at each of `SHARES`, and AURC beside that of chance and of foresight."""
    cases = len(risk)
    draws = [np.repeat(np.arange(cases), w.astype(int)) for w in resample(cases)]
    curves = np.array([coverage_risk(risk[d], sure[d]) for d in draws])
    curve = coverage_risk(risk, sure)
    by = {"run": run, "task": _name(task)}

    def interval(values: np.ndarray) -> Any:
        return percentile_interval(values) if cases > 1 else None

    rows = []
    for share in SHARES:
        last = -1 - referred(cases, share)
        row: Row = {**by, "measure": f"{share:.0%} referred", "cases": cases + last + 1}
        row |= ends(float(1 - curve[last]), interval(1 - curves[:, last]))
        if share:
            row |= _gain(float(curve[-1] - curve[last]), interval(curves[:, -1] - curves[:, last]))
        rows.append(row)
    row = {**by, "measure": "AURC", "cases": cases, "chance": float(risk.mean())}
    row |= {"best": float(coverage_risk(risk, -risk).mean())}
    row |= ends(float(curve.mean()), interval(curves.mean(1)))
    gain = _gain(float(curve.mean() - risk.mean()), interval(curves.mean(1) - curves[:, -1]))
    return [*rows, row | gain]


def _gain(value: float, bounds: tuple[float, float] | None) -> Row:
    low, high = bounds or (None, None)
    return {"difference": value, "difference_low": low, "difference_high": high}


def _name(task: str) -> str:
    return SEG if task == "seg" else TASK_NAMES[task]


def plot(judged: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> Figure:
    """Score of the cases left against the part referred, down to the surest fifth."""
    tasks = list(dict.fromkeys(task for _, task, _, _ in judged))
    looks = colours(distinct([{"run": name} for name, *_ in judged], "run"))
    titles = [SEG if task == "seg" else f"{_name(task)} accuracy" for task in tasks]
    with panels(titles, columns=3) as (figure, axes):
        for axis, task in zip(axes, tasks, strict=True):
            for name, own, risk, sure in judged:
                if own != task:
                    continue
                colour, marker = looks[name]
                cases = len(risk)
                left = slice(max(0, math.ceil(cases / 5) - 1), None)
                away = 100 * (1 - np.arange(1, cases + 1) / cases)[left]
                every = max(1, math.ceil(cases / 12))
                axis.plot(away, 1 - coverage_risk(risk, sure)[left], color=colour, label=name,
                          marker=marker, markersize=4, markevery=every)  # fmt: skip
                best = 1 - coverage_risk(risk, -risk)[left]
                axis.plot(away, best, color=colour, linewidth=0.8, linestyle="--")
                axis.axhline(1 - risk.mean(), color=colour, linewidth=0.8, linestyle=":")
            axis.axvline(10, color=INK, linewidth=0.6)
            axis.set(xlabel="cases referred, %", xlim=(-2, 82))
            if task != "seg":
                axis.set_ylim(-0.02, 1.02)
        axes[0].plot([], [], color=INK, linewidth=0.8, linestyle="--", label="the worst referred")
        axes[0].plot([], [], color=INK, linewidth=0.8, linestyle=":", label="none referred")
        below(figure, *axes)
    return figure
