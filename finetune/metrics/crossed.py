"""Figures over cases and training runs at once, both of them samples.

The runs differ by seed, in labelled cases, weights and order, and each measures all the cases. A
claim about a method, not about one training of it, must hold for other cases and other seeds, so
that both count as random, as readers and cases do in multi-reader multi-case studies (Obuchowski
and Rockette 1995).

Notable: a bootstrap over a handful of seeds makes intervals too short, one over cases alone much
too short; here the variance is that of the two-way analysis of variance, and few seeds cost
degrees of freedom. S seeds, C cases.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from gliomoe.finetune.metrics.auc import pair_wins
from gliomoe.finetune.metrics.intervals import LEVEL, Interval

_SAME = 1e-24
"""Variances and squares below this are rounding."""


@dataclass(frozen=True)
class CrossedMean:
    """A mean over seeds and cases."""

    value: float
    interval: Interval | None
    """For other cases and other seeds; None where there is no spread to estimate."""
    p_value: float | None
    """Two-sided, of the mean being 0."""
    reason: str | None
    """Why something is missing, or what it leaves out."""


def crossed_mean(values: np.ndarray) -> CrossedMean:
    """Mean of a figure over seeds and cases, both random, with a t interval.

    With the mean squares of seeds, cases and remainder, the variance is
    (MS_S + max(MS_C − MS_R, 0)) / SC; degrees of freedom by Satterthwaite as in Hillis (2007), here
    with the cases' share too, which matters for a handful of cases.

    Args:
        values: [S, C] the figure, a difference of two runs, or pseudo-values of either. A single
            seed gives the interval over cases alone, and says so.
    """
    seeds, cases = values.shape
    mean = float(values.mean())
    if cases < 2:
        return CrossedMean(mean, None, None, "a single case")
    by_case = values.mean(0)
    if seeds < 2:
        reason = "a single seed: over cases alone"
        return _t(mean, float(by_case.var(ddof=1)) / cases, cases - 1, reason)
    by_seed = values.mean(1)
    of_seeds = cases * float(by_seed.var(ddof=1))
    of_cases = seeds * float(by_case.var(ddof=1))
    rest = values - by_seed[:, None] - by_case + mean
    beyond = max(of_cases - float((rest**2).sum()) / ((seeds - 1) * (cases - 1)), 0.0)
    spread = of_seeds + beyond
    shares = of_seeds**2 / (seeds - 1) + beyond**2 / (cases - 1)
    freedom = spread**2 / shares if shares else np.inf
    return _t(mean, spread / (seeds * cases), freedom, None)


def auc_pseudo_values(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Jackknife pseudo-values of the AUC, whose mean over cases it is.

    They let an analysis of cases be used for the AUC (Dorfman, Berbaum and Metz 1992): the i-th is
    C · AUC − (C − 1) · AUC without case i.

    Args:
        truth: [C] 0 or 1, at least two of each.
        score: [C], higher means more likely 1; ties count half.

    Returns:
        [C].
    """
    truth = np.asarray(truth).astype(bool)
    wins = pair_wins(truth, score)
    positives, negatives = wins.shape
    total, cases = wins.sum(), len(truth)
    without = np.empty(cases)
    without[truth] = (total - wins.sum(1)) / ((positives - 1) * negatives)
    without[~truth] = (total - wins.sum(0)) / (positives * (negatives - 1))
    return cases * wins.mean() - (cases - 1) * without


def _t(mean: float, variance: float, freedom: float, reason: str | None) -> CrossedMean:
    """Interval and test of a mean with an estimated variance."""
    if variance < _SAME:
        if mean**2 < _SAME:
            return CrossedMean(0.0, (0.0, 0.0), 1.0, reason)
        return CrossedMean(mean, None, None, "the same for all: no variance")
    error = float(np.sqrt(variance))
    half = error * float(stats.t.ppf((1 + LEVEL) / 2, freedom))
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return CrossedMean(mean, (mean - half, mean + half), p_value, reason)
