"""Error bars: bootstrap over cases, and DeLong's variance of the AUC."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

Interval = tuple[float, float]


def bootstrap_mean(
    values: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of a mean over cases.

    Args:
        values: [cases].
        level: Confidence level.
        resamples: Number of bootstrap samples.
        seed: Equal seeds give equal intervals.

    Returns:
        Lower and upper end; None for fewer than two cases, which carry no spread.
    """
    if len(values) < 2:
        return None
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    means = np.asarray(values, float)[draws].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def placements(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Placement values of a score (DeLong, DeLong and Clarke-Pearson 1988).

    Args:
        truth: [cases] 0 or 1, both present.
        score: [cases], higher means more likely 1; ties count half.

    Returns:
        For each positive the share of negatives below it, for each negative the share of
        positives above it. The mean of either is the AUC.
    """
    truth = np.asarray(truth).astype(bool)
    positive, negative = score[truth], score[~truth]
    wins = (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])
    return wins.mean(1), wins.mean(0)


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve with DeLong's interval, cut to 0–1."""

    value: float
    interval: Interval | None
    """None with fewer than two cases of a class: no variance to estimate."""


def delong_auc(truth: np.ndarray, score: np.ndarray, level: float = 0.95) -> Auc:
    """AUC and its interval; both classes must be present."""
    by_positive, by_negative = placements(truth, score)
    value = float(by_positive.mean())
    if min(len(by_positive), len(by_negative)) < 2:
        return Auc(value, None)
    variance = by_positive.var(ddof=1) / len(by_positive)
    variance += by_negative.var(ddof=1) / len(by_negative)
    half = float(stats.norm.ppf((1 + level) / 2) * np.sqrt(variance))
    return Auc(value, (max(0.0, value - half), min(1.0, value + half)))


@dataclass(frozen=True)
class PairedTest:
    """A difference between two runs on the same cases."""

    difference: float
    interval: Interval | None
    p_value: float | None
    """None where the variance cannot be estimated or no test belongs to the interval."""


def delong_test(
    truth: np.ndarray, score: np.ndarray, other: np.ndarray, level: float = 0.95
) -> PairedTest:
    """DeLong's test for two correlated AUCs; the difference is `score` minus `other`.

    Args:
        truth: [cases] 0 or 1, both present.
        score: [cases] of the one run.
        other: [cases] of the other run.
        level: Confidence level of the interval.
    """
    a, b = placements(truth, score), placements(truth, other)
    difference = float(a[0].mean() - b[0].mean())
    if min(len(a[0]), len(a[1])) < 2:
        return PairedTest(difference, None, None)
    variance = sum((x - y).var(ddof=1) / len(x) for x, y in zip(a, b, strict=True))
    if variance <= 0:
        return PairedTest(difference, (difference, difference), 1.0 if difference == 0 else None)
    error = float(np.sqrt(variance))
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    p_value = float(2 * stats.norm.sf(abs(difference) / error))
    return PairedTest(difference, (difference - half, difference + half), p_value)


def paired_bootstrap(ours: np.ndarray, other: np.ndarray, seed: int = 0) -> PairedTest:
    """Mean difference of a per-case figure between two runs, bootstrapped over cases."""
    difference = np.asarray(ours, float) - np.asarray(other, float)
    return PairedTest(float(difference.mean()), bootstrap_mean(difference, seed=seed), None)
