"""Two runs case by case: paired differences, each with its test."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gliomoe.data_shards.labels import REGIONS
from gliomoe.finetune.evaluation.cases import CaseResult
from gliomoe.finetune.evaluation.figures import marker_arrays
from gliomoe.finetune.metrics.paired import (
    PairedTest,
    delong_test,
    holm,
    mcnemar_test,
    wilcoxon_test,
)


def compare(ours: Sequence[CaseResult], theirs: Sequence[CaseResult]) -> dict[str, Any]:
    """Differences on the same cases, ours minus theirs: Dice by region, AUC and accuracy by task.

    Returns:
        `dice`, `auc`, `accuracy`, each name → a `PairedTest` as a dictionary.
    """
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.regions and b.regions]
    dice: dict[str, Any] = {}
    for region in REGIONS if pairs else ():
        values = [[x.regions[region].figures.values["dice"] for x in pair] for pair in pairs]
        dice[region] = asdict(wilcoxon_test(*np.array(values).T))
    if pairs:
        dice["mean"] = asdict(wilcoxon_test(*np.array([[x.mean_dice for x in p] for p in pairs]).T))
    shared = [task for task in ours[0].markers if task in theirs[0].markers] if ours else []
    return {
        "dice": dice,
        "auc": {task: asdict(_auc(ours, theirs, task)) for task in shared if task != "grade"},
        "accuracy": {task: asdict(_accuracy(ours, theirs, task)) for task in shared},
    }


def correct(comparisons: Sequence[dict[str, Any]]) -> int:
    """Add `p_holm` to every difference, corrected for all that have a p-value; returns how many."""
    differences = [
        difference
        for comparison in comparisons
        for kind in ("dice", "auc", "accuracy")
        for difference in comparison[kind].values()
    ]
    tested = [d for d in differences if d["p_value"] is not None]
    for difference in differences:
        difference["p_holm"] = None
    for difference, p_value in zip(tested, holm([d["p_value"] for d in tested]), strict=True):
        difference["p_holm"] = p_value
    return len(tested)


def _auc(ours: Sequence[CaseResult], theirs: Sequence[CaseResult], task: str) -> PairedTest:
    truth, score = marker_arrays(ours, task)
    if len(np.unique(truth)) < 2:
        return PairedTest("delong", len(truth), None, None, None, "cases of one class only")
    return delong_test(truth, score[:, 0], marker_arrays(theirs, task)[1][:, 0])


def _accuracy(ours: Sequence[CaseResult], theirs: Sequence[CaseResult], task: str) -> PairedTest:
    known = [i for i, result in enumerate(ours) if not math.isnan(result.label(task))]
    if not known:
        return PairedTest("mcnemar", 0, None, None, None, "no case has a known label")
    right = [
        np.array([run[i].markers[task].called == run[i].label(task) for i in known])
        for run in (ours, theirs)
    ]
    return mcnemar_test(*right)
