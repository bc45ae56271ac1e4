"""Figures of a molecular marker or the grade over many cases, with the reason where there is none.

Nothing here is NaN: a figure that does not exist for these cases is None.
"""

from typing import Any

import numpy as np
from sklearn import metrics as sk

from gliomoe.finetune.metrics.intervals import delong_auc

Figures = dict[str, Any]
"""JSON-able."""


def youden_threshold(truth: np.ndarray, score: np.ndarray) -> float | None:
    """The threshold with the largest sensitivity + specificity − 1 (Youden 1950).

    Args:
        truth: [cases] 0 or 1, of validation cases.
        score: [cases] probability of 1.

    Returns:
        Half-way between the score at the best cut and the next lower one, so that it separates new
        scores evenly; None if a class is missing.
    """
    if len(np.unique(truth)) < 2:
        return None
    fpr, tpr, cuts = sk.roc_curve(truth, score, drop_intermediate=False)
    cut = float(cuts[1:][np.argmax((tpr - fpr)[1:])])
    below = score[score < cut]
    return (cut + float(below.max())) / 2 if len(below) else cut


def expected_calibration_error(truth: np.ndarray, score: np.ndarray, bins: int = 10) -> float:
    """ECE of the probability of 1, equal-width bins (Guo et al. 2017, for a binary outcome)."""
    index = np.minimum((score * bins).astype(int), bins - 1)
    gap = 0.0
    for b in np.unique(index):
        inside = index == b
        gap += inside.mean() * abs(score[inside].mean() - truth[inside].mean())
    return float(gap)


def binary_figures(truth: np.ndarray, score: np.ndarray, threshold: float | None) -> Figures:
    """Figures of a binary marker.

    Args:
        truth: [cases] 0 or 1.
        score: [cases] probability of 1.
        threshold: Decision threshold from validation; None means 0.5.
    """
    counts = {"cases": len(truth), "positive": int(np.sum(truth))}
    if not len(truth):
        return {**counts, **_nothing(_BINARY), "reason": "no case has a known label"}
    used = 0.5 if threshold is None else threshold
    called = score >= used
    figures: Figures = {
        **counts,
        "threshold": used,
        "threshold_from": "0.5" if threshold is None else "validation",
        "accuracy": float(sk.accuracy_score(truth, called)),
        "brier": float(np.mean((score - truth) ** 2)),
        "log_loss": float(sk.log_loss(truth, score, labels=[0, 1])),
        "ece": expected_calibration_error(truth, score),
    }
    if len(np.unique(truth)) < 2:
        reason = f"all {len(truth)} cases are of one class"
        return {**figures, **_nothing(_TWO_CLASS), "reason": reason}
    auc = delong_auc(truth, score)
    return {
        **figures,
        "auc": auc.value,
        "auc_interval": auc.interval,
        "average_precision": float(sk.average_precision_score(truth, score)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, called)),
        "f1": float(sk.f1_score(truth, called, zero_division=0.0)),
        "mcc": float(sk.matthews_corrcoef(truth, called)),
        "reason": None,
    }


def grade_figures(truth: np.ndarray, probability: np.ndarray, grades: tuple[float, ...]) -> Figures:
    """Figures of the grade.

    Args:
        truth: [cases] WHO grades.
        probability: [cases, grades].
        grades: WHO grade of each column.
    """
    counts = {"cases": len(truth), "by_grade": {f"{g:g}": int(np.sum(truth == g)) for g in grades}}
    if not len(truth):
        return {**counts, **_nothing(_GRADE), "reason": "no case has a known label"}
    called = np.array(grades)[probability.argmax(1)]
    figures: Figures = {
        **counts,
        "accuracy": float(np.mean(called == truth)),
        "balanced_accuracy": float(np.mean([np.mean(called[truth == g] == g) for g in set(truth)])),
    }
    areas = [
        delong_auc(truth == grade, probability[:, column]).value
        for column, grade in enumerate(grades)
        if 0 < np.sum(truth == grade) < len(truth)
    ]
    if not areas:
        return {**figures, "macro_auc": None, "reason": f"all {len(truth)} cases are of one grade"}
    missing = [f"{g:g}" for g in grades if not np.any(truth == g)]
    reason = f"no case of grade {', '.join(missing)}" if missing else None
    return {**figures, "macro_auc": float(np.mean(areas)), "reason": reason}


_TWO_CLASS = ("auc", "auc_interval", "average_precision", "balanced_accuracy", "f1", "mcc")
_BINARY = ("threshold", "threshold_from", "accuracy", "brier", "log_loss", "ece", *_TWO_CLASS)
_GRADE = ("accuracy", "balanced_accuracy", "macro_auc")


def _nothing(keys: tuple[str, ...]) -> Figures:
    return dict.fromkeys(keys)
