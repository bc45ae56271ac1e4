"""Does a model know when it is wrong? Risk against confidence, and what referring cases gains.

Notable: cases of equal confidence have no order; each counts with their mean risk, which is the
expectation over their orders.
"""

import numpy as np

SHARE = 0.1
"""Part of the cases that is referred to a reader, the least confident ones."""


def aurc(risk: np.ndarray, confidence: np.ndarray) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017).

    Args:
        risk: [cases], such as 1 − Dice.
        confidence: [cases], higher is surer.

    Returns:
        Mean over all coverages of the mean risk of the surest cases; 0 is best, and a confidence
        that tells nothing gives the mean risk.
    """
    ranked = _ranked(risk, confidence)
    return float(np.mean(np.cumsum(ranked) / np.arange(1, len(ranked) + 1)))


def referred(cases: int) -> int:
    """How many of the cases are referred: a tenth, rounded down."""
    return int(cases * SHARE)


def kept_risk(risk: np.ndarray, confidence: np.ndarray) -> float:
    """Mean risk of the cases that remain when the least confident tenth is referred."""
    return float(_ranked(risk, confidence)[: len(risk) - referred(len(risk))].mean())


def _ranked(risk: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Risks, surest case first."""
    _, group = np.unique(-confidence, return_inverse=True)
    mean = np.bincount(group, risk) / np.bincount(group)
    return mean[np.sort(group)]
