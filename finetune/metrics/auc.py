"""The area under the ROC curve with DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988)."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from gliomoe.finetune.metrics.intervals import LEVEL, Interval


def placements(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Placement values of a score.

    Args:
        truth: [cases] 0 or 1, both present.
        score: [cases], higher means more likely 1; ties count half.

    Returns:
        For each positive the share of negatives below it, for each negative the share of
        positives above it. The mean of either is the AUC.
    """
    wins = pair_wins(truth, score)
    return wins.mean(1), wins.mean(0)


def pair_wins(truth: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[positives, negatives] 1 where the positive scores higher, ½ where both score the same."""
    truth = np.asarray(truth).astype(bool)
    positive, negative = score[truth], score[~truth]
    return (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve with DeLong's interval, cut to 0–1."""

    value: float
    interval: Interval | None
    """None with fewer than two cases of a class: no variance to estimate."""


def delong_auc(truth: np.ndarray, score: np.ndarray) -> Auc:
    """AUC and its interval; both classes must be present."""
    by_positive, by_negative = placements(truth, score)
    value = float(by_positive.mean())
    if min(len(by_positive), len(by_negative)) < 2:
        return Auc(value, None)
    variance = by_positive.var(ddof=1) / len(by_positive)
    variance += by_negative.var(ddof=1) / len(by_negative)
    half = float(stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance))
    return Auc(value, (max(0.0, value - half), min(1.0, value + half)))
