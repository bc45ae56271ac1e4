"""Two runs on the same cases: paired differences with interval and test, and Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from gliomoe.finetune.metrics.auc import placements
from gliomoe.finetune.metrics.intervals import LEVEL, Interval, bootstrap_mean

_SAME = 1e-12
"""Differences of figures and variances below this are rounding."""


@dataclass(frozen=True)
class PairedTest:
    """A difference between two runs on the same cases."""

    test: str
    """`wilcoxon`, `mcnemar` or `delong`."""
    cases: int
    difference: float | None
    """The one minus the other; None where it does not exist."""
    interval: Interval | None
    p_value: float | None
    """Two-sided; None where it cannot be computed."""
    reason: str | None
    """Why something is missing."""


def wilcoxon_test(ours: np.ndarray, other: np.ndarray) -> PairedTest:
    """Mean difference of a per-case figure, bootstrapped over cases, and the signed-rank test.

    Cases without a difference are dropped from the ranks (Wilcoxon 1945); if all are, p is 1.

    Args:
        ours: [cases], at least one.
        other: [cases] of the other run.
    """
    difference = np.asarray(ours, float) - np.asarray(other, float)
    difference[np.abs(difference) < _SAME] = 0.0
    mean, interval = float(difference.mean()), bootstrap_mean(difference)
    if len(difference) < 2:
        return PairedTest("wilcoxon", 1, mean, None, None, "a single case")
    p_value = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return PairedTest("wilcoxon", len(difference), mean, interval, p_value, None)


def mcnemar_test(ours: np.ndarray, other: np.ndarray) -> PairedTest:
    """Difference of accuracies with a bootstrap interval, and McNemar's exact test.

    The test is the binomial one on the cases that only one of the runs tells rightly (McNemar
    1947); if there are none, p is 1.

    Args:
        ours: [cases] bool, whether the case is told rightly; at least one case.
        other: [cases] bool of the other run.
    """
    gained, lost = int(np.sum(ours & ~other)), int(np.sum(other & ~ours))
    difference = ours.astype(float) - other.astype(float)
    changed = gained + lost
    p_value = float(stats.binomtest(gained, changed).pvalue) if changed else 1.0
    return PairedTest(
        "mcnemar",
        len(ours),
        float(difference.mean()),
        bootstrap_mean(difference),
        p_value,
        "a single case" if len(ours) < 2 else None,
    )


def delong_test(truth: np.ndarray, ours: np.ndarray, other: np.ndarray) -> PairedTest:
    """DeLong's test for two correlated AUCs.

    Args:
        truth: [cases] 0 or 1, both present.
        ours: [cases] probability of 1.
        other: [cases] of the other run.
    """
    a, b = placements(truth, ours), placements(truth, other)
    difference = float(a[0].mean() - b[0].mean())
    if min(len(a[0]), len(a[1])) < 2:
        reason = "a class has a single case"
        return PairedTest("delong", len(truth), difference, None, None, reason)
    variance = sum(float((x - y).var(ddof=1)) / len(x) for x, y in zip(a, b, strict=True))
    if variance < _SAME:
        if abs(difference) < _SAME:  # both order the cases alike
            return PairedTest("delong", len(truth), 0.0, (0.0, 0.0), 1.0, None)
        reason = "the difference is the same for every case: no variance"
        return PairedTest("delong", len(truth), difference, None, None, reason)
    error = float(np.sqrt(variance))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    p_value = float(2 * stats.norm.sf(abs(difference) / error))
    interval = (difference - half, difference + half)
    return PairedTest("delong", len(truth), difference, interval, p_value, None)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.sort(p_values) * (len(p_values) - np.arange(len(p_values)))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()
