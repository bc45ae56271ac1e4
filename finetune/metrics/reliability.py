"""How far probabilities can be taken at their word: log loss, Brier score, ECE, reliability."""

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10
SMALLEST = 1e-7
"""Probabilities are taken to be at least this far from 0 and 1 in logarithms."""


@dataclass(frozen=True)
class Forecasts:
    """What was forecast for each case and what came, for a binary marker or for classes alike."""

    log_loss: np.ndarray
    """[cases] negative log likelihood of the label."""
    brier: np.ndarray
    """[cases] squared error: of the probability of 1, or summed over the classes."""
    confidence: np.ndarray
    """[cases] probability of 1, or of the likeliest class."""
    outcome: np.ndarray
    """[cases] 0 or 1: the label, or whether the likeliest class is the label."""

    @classmethod
    def of_binary(cls, truth: np.ndarray, score: np.ndarray) -> "Forecasts":
        """Of labels [cases] and probabilities of 1 [cases]."""
        truth = np.asarray(truth, float)
        of_label = np.where(truth == 1, score, 1 - score)
        loss = -np.log(of_label.clip(SMALLEST, 1 - SMALLEST))
        return cls(loss, (score - truth) ** 2, score, truth)

    @classmethod
    def of_classes(cls, index: np.ndarray, probability: np.ndarray) -> "Forecasts":
        """Of the labels' columns [cases] and probabilities [cases, classes]."""
        label = np.eye(probability.shape[1])[index]
        of_label = (probability * label).sum(1)
        loss = -np.log(of_label.clip(SMALLEST, 1 - SMALLEST))
        hit = (probability.argmax(1) == index).astype(float)
        return cls(loss, ((probability - label) ** 2).sum(1), probability.max(1), hit)

    @property
    def bins(self) -> np.ndarray:
        """[cases] number of each confidence's bin of equal width."""
        return np.minimum((self.confidence * BINS).astype(int), BINS - 1)

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Log loss, Brier score and ECE (Guo et al. 2017) of weighted cases.

        Args:
            weights: [B, cases].

        Returns:
            Name → [B].
        """
        total = weights.sum(1)
        gap = np.eye(BINS)[self.bins] * (self.confidence - self.outcome)[:, None]
        return {
            "log_loss": weights @ self.log_loss / total,
            "brier": weights @ self.brier / total,
            "ece": np.abs(weights @ gap).sum(1) / total,
        }

    def reliability(self) -> list[dict[str, Any]]:
        """For each bin its range, number of cases, mean confidence and observed frequency."""
        rows = []
        for number in range(BINS):
            inside = self.bins == number
            count = int(inside.sum())
            rows.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "count": count,
                    "predicted": float(self.confidence[inside].mean()) if count else None,
                    "observed": float(self.outcome[inside].mean()) if count else None,
                }
            )
        return rows
