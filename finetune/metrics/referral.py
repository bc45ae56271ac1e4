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
    return float(coverage_risk(risk, confidence).mean())


def coverage_risk(risk: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The risk-coverage curve.

    Args:
        risk: [cases].
        confidence: [cases], higher is surer.

    Returns:
        [cases] mean risk of the surest case, of the two surest, and so on to all.
    """
    ranked = _ranked(risk, confidence)
    return np.cumsum(ranked) / np.arange(1, len(ranked) + 1)


def referred(cases: int, share: float = SHARE) -> int:
    """How many of the cases are referred: their share, rounded down."""
    return int(cases * share + 1e-9)


def kept_risk(risk: np.ndarray, confidence: np.ndarray) -> float:
    """Mean risk of the cases that remain when the least confident tenth is referred."""
    return float(coverage_risk(risk, confidence)[-1 - referred(len(risk))])


def _ranked(risk: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Risks, surest case first."""
    _, group = np.unique(-confidence, return_inverse=True)
    mean = np.bincount(group, risk) / np.bincount(group)
    return mean[np.sort(group)]
