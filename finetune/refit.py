"""The last layer of the marker head, fitted anew on whole cases when training is over.

In training crops show parts of tumours, and some hundred weights learn from a handful of labels.
Here each training case is described once, whole, and a logistic regression that is held back takes
the place of what was learned. A prior of equal weight for each part of the description keeps the
sizes of the regions, which tell most, from drowning among the numbers of the encoder.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from gliomoe.data_shards.batch import StudySample
from gliomoe.finetune.inference import InferenceConfig, mean_logits
from gliomoe.finetune.losses import GRADES
from gliomoe.models.heads.markers import MarkerHead
from gliomoe.models.model import Model

log = logging.getLogger(__name__)

_DESCRIPTION = "description"
_CONSTANT = 1e-6
_UNSEEN = -10.0
"""Logit, below the others, of a class that no case has."""


def refit_markers(
    model: Model, cases: Sequence[StudySample], strength: float, config: InferenceConfig
) -> None:
    """Fit the classifiers of `model.heads["markers"]` on whole cases; no other weight changes.

    A task of which fewer than two classes are known keeps what was learned.

    Args:
        model: With a `MarkerHead`.
        cases: Training cases, with targets; NaN for unknown labels.
        strength: C of the regression: how far weights may go from 0.
        config: Windows.
    """
    head = model.heads["markers"]
    assert isinstance(head, MarkerHead)
    training = model.training
    model.eval()
    with _describing(head):
        described = [mean_logits(model, case, config)[_DESCRIPTION] for case in cases]
    model.train(training)
    x = torch.stack(described).double().numpy()
    for task, linear in head.classify.items():
        targets = np.array([case.targets[task] for case in cases])
        known = ~np.isnan(targets)
        values = targets[known].tolist()
        classes = np.array([GRADES.index(v) if task == "grade" else int(v) for v in values], int)
        if len(np.unique(classes)) < 2:
            log.info("fewer than two classes of %s are known; it is not fitted anew", task)
            continue
        assert isinstance(linear, nn.Linear)
        weight, bias = fit(x[known], classes, linear.out_features, head.groups, strength)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))


def fit(
    x: np.ndarray, classes: np.ndarray, outputs: int, groups: Sequence[int], strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression with classes of equal weight, on standardised groups of equal weight.

    Args:
        x: [cases, F].
        classes: [cases] of at least two values.
        outputs: Logits: 1 for two classes, or one for each class.
        groups: Columns in each group, F in all.
        strength: C.

    Returns:
        Weight [outputs, F] and bias [outputs] for `x` as it is.
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation = x.mean(0), x.std(0)
    varies = deviation > _CONSTANT
    scale = np.zeros_like(mean)
    first = 0
    for size in groups:
        own = np.arange(first, first + size)[varies[first : first + size]]
        scale[own] = 1 / (deviation[own] * np.sqrt(max(len(own), 1)))
        first += size
    regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=10_000)
    regression.fit((x - mean) * scale, classes)
    weight, bias = regression.coef_ * scale, regression.intercept_
    bias = bias - weight @ mean
    if outputs == 1:
        return weight, bias
    if len(weight) == 1:  # of two classes, the logit of the second against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights, all_biases = np.zeros((outputs, x.shape[1])), np.full(outputs, _UNSEEN)
    all_weights[regression.classes_], all_biases[regression.classes_] = weight, bias
    return all_weights, all_biases


@contextmanager
def _describing(head: MarkerHead) -> Iterator[None]:
    """Let the head answer with its description."""
    classifiers = head.classify
    head.classify = nn.ModuleDict({_DESCRIPTION: nn.Identity()})
    try:
        yield
    finally:
        head.classify = classifiers
