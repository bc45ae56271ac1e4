"""Figures of a molecular marker or the grade over many cases, with the reason where there is none.

Notable: nothing here is NaN; a figure that does not exist for these cases is None. Figures are
written for weighted cases, so that all bootstrap samples are computed at once; scikit-learn's are
the same, one sample at a time. n cases, B resamples.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sk

from gliomoe.finetune.metrics.auc import delong_auc, pair_wins
from gliomoe.finetune.metrics.intervals import percentile_interval, resample
from gliomoe.finetune.metrics.reliability import Forecasts

Figures = dict[str, Any]
"""JSON-able."""

BINARY = (
    "auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "mcc",
)
GRADE = ("accuracy", "balanced_accuracy", "macro_auc")
"""Names of the figures of a binary marker and of the grade, beside those of calibration."""


def youden_threshold(truth: np.ndarray, score: np.ndarray) -> float | None:
    """The threshold with the largest sensitivity + specificity − 1 (Youden 1950).

    Args:
        truth: [n] 0 or 1, of validation cases.
        score: [n] probability of 1.

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


def binary_figures(truth: np.ndarray, score: np.ndarray, threshold: float | None) -> Figures:
    """Figures of a binary marker.

    Args:
        truth: [n] 0 or 1.
        score: [n] probability of 1.
        threshold: Decision threshold from validation; None means 0.5.

    Returns:
        Counts, threshold, each of `BINARY` as {value, interval} or None, and `reason`.
    """
    used = 0.5 if threshold is None else threshold
    counts: Figures = {
        "cases": len(truth),
        "positive": int(np.sum(truth)),
        "threshold": used,
        "threshold_from": "0.5" if threshold is None else "validation",
    }
    if not len(truth):
        return {**counts, **dict.fromkeys(BINARY), "reason": "no case has a known label"}
    positive, called = np.asarray(truth) == 1, score >= used
    found = with_intervals(lambda w: _decisions(positive, called, w), truth)
    if len(np.unique(truth)) < 2:
        reason = f"all {len(truth)} cases are of one class"
        kept = {name: found[name] for name in ("accuracy", "sensitivity", "specificity")}
        return {**counts, **dict.fromkeys(BINARY), **kept, "reason": reason}
    auc = delong_auc(truth, score)
    found |= with_intervals(
        lambda w: {"average_precision": _average_precision(truth, score, w)}, truth
    )
    found["auc"] = {"value": auc.value, "interval": auc.interval}
    return {**counts, **{name: found[name] for name in BINARY}, "reason": None}


def grade_figures(truth: np.ndarray, probability: np.ndarray, grades: tuple[float, ...]) -> Figures:
    """Figures of the grade.

    Args:
        truth: [n] WHO grades.
        probability: [n, grades].
        grades: WHO grade of each column.

    Returns:
        Counts, each of `GRADE` as {value, interval} or None, and `reason`.
    """
    truth = np.asarray(truth, float)
    present = [g for g in grades if np.any(truth == g)]
    counts: Figures = {
        "cases": len(truth),
        "by_grade": {f"{g:g}": int(np.sum(truth == g)) for g in grades},
    }
    if not len(truth):
        return {**counts, **dict.fromkeys(GRADE), "reason": "no case has a known label"}
    right = np.array(grades)[probability.argmax(1)] == truth

    def figures(w: np.ndarray) -> dict[str, np.ndarray]:
        recalls = [w @ (right & (truth == g)) / (w @ (truth == g)) for g in present]
        areas = [_area(truth == g, probability[:, grades.index(g)], w) for g in present]
        return {
            "accuracy": w @ right / w.sum(1),
            "balanced_accuracy": np.mean(recalls, 0),
            "macro_auc": np.mean(areas, 0),
        }

    missing = [f"{g:g}" for g in grades if g not in present]
    reason = f"no case of grade {', '.join(missing)}" if missing else None
    if len(present) < 2:
        reason = f"all {len(truth)} cases are of one grade"
    return {**counts, **with_intervals(figures, truth), "reason": reason}


def calibration_figures(forecasts: Forecasts, strata: np.ndarray) -> Figures:
    """Log loss, Brier score and ECE as {value, interval}, and the reliability diagram's data.

    Args:
        forecasts: Of n cases; without any the figures are None.
        strata: [n] labels.
    """
    if not len(strata):
        return {**dict.fromkeys(("log_loss", "brier", "ece")), "reliability": []}
    return {
        **with_intervals(forecasts.figures, strata),
        "reliability": forecasts.reliability(),
    }


def with_intervals(
    figures: Callable[[np.ndarray], dict[str, np.ndarray]], strata: np.ndarray
) -> Figures:
    """Figures of cases as {value, interval}, or None where they do not exist.

    Args:
        figures: Weights [B, n] → name → [B], NaN where a figure does not exist.
        strata: [n] labels; bootstrap samples keep the number of cases of each.
    """
    values = figures(np.ones((1, len(strata))))
    draws = figures(resample(len(strata), strata)) if len(strata) > 1 else {}
    return {
        name: None
        if np.isnan(value[0])
        else {
            "value": float(value[0]),
            "interval": percentile_interval(draws[name]) if draws else None,
        }
        for name, value in values.items()
    }


def _decisions(positive: np.ndarray, called: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """What follows from the confusion matrix; scikit-learn's conventions for empty margins."""
    tp, fp = w @ (positive & called), w @ (~positive & called)
    fn, tn = w @ (positive & ~called), w @ (~positive & ~called)
    sensitivity, specificity = _ratio(tp, tp + fn, np.nan), _ratio(tn, tn + fp, np.nan)
    margins = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": (tp + tn) / w.sum(1),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _ratio(tp, tp + fp, 0.0),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn, 0.0),
        "mcc": _ratio(tp * tn - fp * fn, margins, 0.0),
    }


def _average_precision(truth: np.ndarray, score: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Average precision: Σ (Rₖ − Rₖ₋₁) Pₖ over the distinct scores, highest first."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))
    found = np.cumsum(w[:, order] * truth[order], 1)[:, last]
    called = np.cumsum(w[:, order], 1)[:, last]
    precision = _ratio(found, called, 0.0)
    steps = np.diff(found, axis=1, prepend=0.0)
    return (steps * precision).sum(1) / found[:, -1]


def _area(positive: np.ndarray, score: np.ndarray, w: np.ndarray) -> np.ndarray:
    """AUC of one class against the others; NaN where there are no others."""
    above, below = w[:, positive], w[:, ~positive]
    wins = ((above @ pair_wins(positive, score)) * below).sum(1)
    return _ratio(wins, above.sum(1) * below.sum(1), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float) -> np.ndarray:
    """Quotient, `empty` where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), empty), where=whole > 0)
