"""Error bars by the bootstrap over cases (Efron and Tibshirani 1993), the same resamples for all.

Notable: a resample is a vector of weights, how often each case was drawn, so that a figure written
for weighted cases is computed on all resamples at once. B resamples.
"""

import numpy as np

Interval = tuple[float, float]

RESAMPLES = 2000
LEVEL = 0.95


def resample(cases: int, strata: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Bootstrap samples of cases as weights.

    Args:
        cases: How many there are.
        strata: [cases] any values; each value keeps its number of cases in every sample, so that
            no sample of few positives is without any. None draws from all cases alike.
        seed: Equal seeds give equal samples.

    Returns:
        [B, cases] how often each case was drawn.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((RESAMPLES, cases))
    for stratum in np.unique(np.zeros(cases) if strata is None else strata):
        inside = np.arange(cases) if strata is None else np.flatnonzero(strata == stratum)
        even = np.full(len(inside), 1 / len(inside))
        weights[:, inside] = rng.multinomial(len(inside), even, RESAMPLES)
    return weights


def percentile_interval(draws: np.ndarray) -> Interval | None:
    """The 95 % percentile interval of a figure's values over resamples.

    Args:
        draws: [B]; NaN where a resample does not have the figure.

    Returns:
        Lower and upper end; None if no resample has it.
    """
    known = draws[~np.isnan(draws)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap_mean(values: np.ndarray) -> Interval | None:
    """Interval of a mean over cases.

    Args:
        values: [cases].

    Returns:
        Lower and upper end; None for fewer than two cases, which carry no spread.
    """
    return bootstrap_ratio(values, np.ones(len(values)))


def bootstrap_ratio(part: np.ndarray, whole: np.ndarray) -> Interval | None:
    """Interval of a ratio of two sums over cases, such as lesions found of lesions there.

    Args:
        part: [cases].
        whole: [cases]; samples where its sum is 0 are left out.

    Returns:
        Lower and upper end; None for fewer than two cases.
    """
    if len(part) < 2:
        return None
    weights = resample(len(part))
    below = weights @ np.asarray(whole, float)
    shares = np.full(len(below), np.nan)
    np.divide(weights @ np.asarray(part, float), below, out=shares, where=below > 0)
    return percentile_interval(shares)
