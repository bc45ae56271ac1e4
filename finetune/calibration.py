"""Temperature scaling of marker probabilities (Guo et al. 2017).

Notable: the temperature is fitted on validation predictions of the run's folds alone, each by the
model that did not train on the case, and applied to the mean of the ensemble. Where it cannot be
fitted it is 1, with the reason. p^(1/T), normalised, is the softmax of logits divided by T; a
binary marker is the case of two classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.markers import youden_threshold
from gliomoe.finetune.metrics.reliability import SMALLEST

HeldOut = tuple[Mapping[str, float], Mapping[str, Sequence[float]]]
"""Targets and probabilities of a validation case, by task."""

FEWEST = 8
"""Fewer validation cases give no temperature."""

RANGE = (0.1, 10.0)
"""Temperatures that are looked at."""


@dataclass(frozen=True)
class Temperature:
    """The temperature of one task."""

    value: float
    cases: int
    """Validation cases with a known label."""
    reason: str | None
    """Why it was not fitted; None: it was."""


NOT_FITTED = Temperature(1.0, 0, "the model carries none")


def scale(probability: Tensor, temperature: float) -> Tensor:
    """Probabilities at another temperature; 1 leaves them untouched.

    Args:
        probability: [..., 1] of the second of two classes, or [..., K] summing to 1.
        temperature: Above 1 less sure, below 1 surer.
    """
    if temperature == 1.0:
        return probability
    p = probability.double()
    classes = torch.cat([1 - p, p], -1) if p.shape[-1] == 1 else p
    scaled = (classes.clamp(SMALLEST).log() / temperature).softmax(-1)
    return scaled[..., -probability.shape[-1] :].to(probability.dtype)


def calibrated(
    markers: Mapping[str, Tensor], temperatures: Mapping[str, Temperature]
) -> dict[str, Tensor]:
    """Marker task → probabilities at the task's temperature."""
    return {task: scale(p, temperatures[task].value) for task, p in markers.items()}


def fit_temperature(probability: np.ndarray, label: np.ndarray) -> Temperature:
    """The temperature with the smallest log loss, within `RANGE`.

    Args:
        probability: [cases, 1] or [cases, classes], of validation cases.
        label: [cases] number of the class: 0 or 1, or the column.
    """
    cases = len(label)
    if cases < FEWEST:
        return Temperature(1.0, cases, f"{cases} validation cases, {FEWEST} are needed")
    if len(np.unique(label)) < 2:
        return Temperature(1.0, cases, f"all {cases} validation cases are of one class")
    p, y = torch.from_numpy(np.asarray(probability, float)), torch.from_numpy(label.astype(int))

    def loss(log_temperature: float) -> float:
        q = scale(p, float(np.exp(log_temperature)))
        classes = torch.cat([1 - q, q], -1) if q.shape[-1] == 1 else q
        return -float(classes[torch.arange(cases), y].clamp(SMALLEST).log().mean())

    low, high = np.log(RANGE)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x
    if best - low < 1e-3:
        return Temperature(1.0, cases, "validation cases are told too well to fit it")
    if high - best < 1e-3:
        return Temperature(1.0, cases, "validation cases are told no better than by chance")
    return Temperature(float(np.exp(best)), cases, None)


def marker_rules(cases: Sequence[HeldOut], tasks: Sequence[str]) -> dict[str, Any]:
    """How probabilities become decisions, from validation cases.

    Args:
        cases: Validation cases, predicted by models that did not train on them.
        tasks: Marker tasks.

    Returns:
        `temperatures`, task → a `Temperature` as a dictionary, and `thresholds`, binary marker →
        Youden's threshold of the calibrated probability, None if a class is missing.
    """
    temperatures, thresholds = {}, {}
    for task in tasks:
        known = [(t[task], p[task]) for t, p in cases if not math.isnan(t[task])]
        label = np.array([target for target, _ in known])
        classes = len(GRADES) if task == "grade" else 1
        probability = np.array([p for _, p in known]).reshape(len(known), classes)
        if task == "grade":
            index = np.array([GRADES.index(target) for target in label], int)
            temperatures[task] = asdict(fit_temperature(probability, index))
            continue
        found = fit_temperature(probability, label)
        temperatures[task] = asdict(found)
        score = scale(torch.from_numpy(probability), found.value).numpy().reshape(-1)
        thresholds[task] = youden_threshold(label, score)
    return {"temperatures": temperatures, "thresholds": thresholds}
