"""Figures of a grid's runs: of each arm over seeds and cases, and its gain over the baseline.

Notable: both the seeds and the cases are samples, see `gliomoe.finetune.metrics.crossed`. A gain is
paired: both arms of a draw train on the same cases and are measured on the same cases.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.crossed import CrossedMean, auc_pseudo_values, crossed_mean
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.finetune.studies.output import Row
from gliomoe.launch.studies.grid import Cell, Cohort, Grid

CASES = "cases.csv"

MEAN_DICE = "Dice mean"

_TOO_FEW = "fewer than two cases of a class"

CONVENTIONS = {
    "value": "mean over seeds and cases of the mean Dice over regions, or the mean AUC over seeds",
    "difference": "arm minus baseline, paired by seed and case",
    "interval": (
        "95 %, for other cases and other seeds: t, its variance and degrees of freedom from the "
        "two-way analysis of variance, for the AUC of jackknife pseudo-values; values cut to 0-1"
    ),
    "p_value": "of the same t; p_holm by Holm for all of the table",
    "seed_sd": "standard deviation over seeds of the figure over all cases",
}


def grid_rows(grid: Grid, baseline: str) -> list[Row]:
    """A row for each cohort, number of shots, arm and measure.

    Raises:
        DataError: If an evaluation is of other cases than the one beside it.
    """
    rows = []
    for cohort in grid.cohorts:
        for shots in grid.shots:
            found = {arm: _over_seeds(grid, cohort, arm, shots) for arm in grid.arms}
            for arm in grid.arms:
                by = {"arm": arm, "shots": shots, "test": cohort.name}
                base = None if arm == baseline else found[baseline]
                rows += [{**by, **row} for row in measure_rows(found[arm], base)]
    return rows


def measure_rows(
    ours: Mapping[str, np.ndarray], baseline: Mapping[str, np.ndarray] | None
) -> list[Row]:
    """Figures of one arm, and its gains.

    Args:
        ours: Measure → [S, C] values or pseudo-values; none where the measure does not exist.
        baseline: The same of the baseline; None for the baseline itself.
    """
    rows = []
    for measure, values in ours.items():
        row: Row = {"measure": measure, "cases": values.shape[1], "seeds": len(values)}
        if not values.size:
            rows.append({**row, "value": None, "low": None, "high": None, "reason": _TOO_FEW})
            continue
        own = crossed_mean(values)
        low, high = (None, None) if own.interval is None else np.clip(own.interval, 0, 1).tolist()
        spread = float(values.mean(1).std(ddof=1)) if len(values) > 1 else None
        row |= {"value": own.value, "low": low, "high": high, "seed_sd": spread}
        if baseline is not None and measure in baseline:
            row |= _gain(crossed_mean(values - baseline[measure]))
        rows.append({**row, "reason": row.get("reason", own.reason)})
    return rows


def case_values(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """What a run's table of cases says.

    Args:
        path: `cases.csv` of an evaluation.

    Returns:
        Keys of the cases; measure → [C] values whose mean is the figure, over the cases that have
        it, empty where there are too few of a class.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    dice = [float(line["mean_dice"]) for line in lines if line.get("mean_dice")]
    measures = {MEAN_DICE: np.array(dice)} if dice else {}
    for task, name in TASK_NAMES.items():
        known = [line for line in lines if line.get(f"{task}_label")]
        if known:
            measures[f"AUC {name}"] = _auc_values(task, known)
    return [line["key"] for line in lines], measures


def _over_seeds(grid: Grid, cohort: Cohort, arm: str, shots: int) -> dict[str, np.ndarray]:
    """Measure → [S, C]."""
    cells = [Cell(arm, shots, seed) for seed in range(grid.seeds)]
    paths = [grid.evaluation(cell, cohort) / CASES for cell in cells]
    runs = [case_values(path) for path in paths]
    first = case_values(grid.evaluation(grid.cells[0], cohort) / CASES)[0]
    for path, (keys, _) in zip(paths, runs, strict=True):
        if keys != first:
            raise DataError(
                f"{path}: of other cases than the study's other runs; remove that folder, and the "
                "same command measures again"
            )
    return {name: np.stack([values[name] for _, values in runs]) for name in runs[0][1]}


def _auc_values(task: str, lines: Sequence[Mapping[str, str]]) -> np.ndarray:
    """Pseudo-values of a marker's AUC, or of the grades' mean AUC, each against the others."""
    truth = np.array([float(line[f"{task}_label"]) for line in lines])
    if task != "grade":
        classes = {1.0: f"{task}_p"}
    else:
        classes = {grade: f"grade_p{grade:g}" for grade in GRADES if np.any(truth == grade)}
    values = []
    for label, column in classes.items():
        positive = truth == label
        if min(positive.sum(), (~positive).sum()) < 2:
            return np.empty(0)
        values.append(auc_pseudo_values(positive, np.array([float(x[column]) for x in lines])))
    return np.mean(values, 0)


def _gain(found: CrossedMean) -> Row:
    low, high = found.interval or (None, None)
    return {
        "difference": found.value,
        "difference_low": low,
        "difference_high": high,
        "p_value": found.p_value,
        "reason": found.reason,
    }
