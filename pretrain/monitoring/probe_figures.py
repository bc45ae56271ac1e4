"""What frozen features tell of labels: ridge regression in closed form, cross-validated.

After big_vision's few-shot evaluator, the linear layer is not trained but solved for, from sums
over tokens that the ranks add up; no token leaves its process. Whole tumour is regressed as the
share of tumour in each patch, markers by logistic regression on the mean token of a study.

Shapes: N tokens of a study, C channels, K folds, T thresholds, S studies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gliomoe.pretrain.engine import distributed

_STRENGTH = 1e-4
"""Ridge penalty, relative to the mean variance of the features."""
_THRESHOLDS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


@dataclass(frozen=True)
class StudyTokens:
    """A labelled study as the encoder sees it."""

    tokens: Tensor
    """[N, C] float32."""
    tumour: Tensor
    """[N] float32, share of each patch that is whole tumour."""
    fold: int


def tumour_figures(
    studies: Sequence[StudyTokens], folds: int, width: int, device: torch.device
) -> dict[str, float]:
    """How well a linear layer on frozen tokens finds the whole tumour; every rank calls it.

    Args:
        studies: Those of this rank that have tokens and labels.
        folds: K.
        width: C.
        device: Over which the ranks exchange sums.

    Returns:
        `tumour_dice`, of patches painted as a whole, at the threshold that is best on the other
        folds, against the true voxels, so that even a perfect layer stays below 1; `tumour_auc`,
        of patches that are mostly tumour against others. Both are means over studies of the folds
        left out, and missing where there is none.
    """
    grams = torch.zeros(folds, width + 2, width + 2, dtype=torch.float64)
    for study in studies:
        tokens, tumour = study.tokens.double(), study.tumour.double()
        joint = torch.cat([tokens, torch.ones(len(tokens), 1), tumour[:, None]], 1)
        grams[study.fold] += joint.T @ joint
    grams = distributed.add(grams, device)
    layers = []
    for fold in range(folds):
        others = grams[[k for k in range(folds) if k != fold]].sum(0)
        layers.append(ridge(others) if others[-2, -2] else None)
    found = torch.zeros(folds, 2, len(_THRESHOLDS) + 1, dtype=torch.float64)
    areas = torch.zeros(2, dtype=torch.float64)
    for study in studies:
        for fold, layer in enumerate(layers):
            if layer is None:
                continue
            made = study.tokens.double() @ layer[:-1] + layer[-1]
            left_out = study.fold == fold
            if study.tumour.any():
                found[fold, int(left_out), :-1] += painted_dice(made, study.tumour.double())
                found[fold, int(left_out), -1] += 1
            if left_out:
                areas += _area(study.tumour > 0.5, made)
    found, areas = distributed.add(found, device), distributed.add(areas, device)
    best = found[:, 0, :-1].argmax(1)
    dices, counted = found[torch.arange(folds), 1, best].sum(), found[:, 1, -1].sum()
    figures = {}
    if counted:
        figures["tumour_dice"] = float(dices / counted)
    if areas[1]:
        figures["tumour_auc"] = float(areas[0] / areas[1])
    return figures


def ridge(gram: Tensor) -> Tensor:
    """A linear layer from sums over tokens.

    Args:
        gram: [C + 2, C + 2] float64, the sum of the outer products of (features, 1, target).

    Returns:
        [C + 1], weights and bias. The penalty spares the bias.
    """
    number = gram[-2, -2]
    mean, target = gram[:-2, -2] / number, gram[-1, -2] / number
    covariance = gram[:-2, :-2] / number - torch.outer(mean, mean)
    moment = gram[:-2, -1] / number - mean * target
    covariance.diagonal().add_(_STRENGTH * covariance.diagonal().mean() + 1e-12)
    weights = torch.linalg.solve(covariance, moment)
    return torch.cat([weights, (target - mean @ weights)[None]])


def painted_dice(made: Tensor, tumour: Tensor) -> Tensor:
    """Dice over voxels when patches above a threshold are painted as tumour.

    Args:
        made: [N], what the layer says of each patch.
        tumour: [N], true share of each patch, with some tumour.

    Returns:
        [T], one for each threshold.
    """
    painted = (made[:, None] > _THRESHOLDS).double()
    return 2 * (painted * tumour[:, None]).sum(0) / (painted.sum(0) + tumour.sum())


def marker_figures(
    pooled: np.ndarray, labels: Mapping[str, np.ndarray], subjects: Sequence[str], folds: int
) -> dict[str, float]:
    """How well logistic regression on frozen features tells markers.

    Args:
        pooled: [S, C], the mean token of each study.
        labels: Marker → [S], 0 or 1, NaN where unknown.
        subjects: S names; studies of one subject stay in one fold.
        folds: K.

    Returns:
        `<marker>_auc`, the mean over the folds left out; no entry for a marker of which a class
        has fewer subjects than there are folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    figures = {}
    names = np.asarray(subjects)
    for marker, values in labels.items():
        known = ~np.isnan(values)
        x, y, group = pooled[known], values[known].astype(int), names[known]
        if min(len(set(group[y == kind])) for kind in (0, 1)) < folds:
            continue
        areas = []
        for train, test in StratifiedGroupKFold(folds).split(x, y, group):
            if min(len(set(y[train])), len(set(y[test]))) < 2:
                continue
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
            model.fit(x[train], y[train])
            areas.append(roc_auc_score(y[test], model.decision_function(x[test])))
        if areas:
            figures[f"{marker}_auc"] = float(np.mean(areas))
    return figures


def _area(tumour: Tensor, made: Tensor) -> Tensor:
    """[2] float64: area under the curve of one study and 1, or zeros if it has one kind only."""
    from sklearn.metrics import roc_auc_score

    if tumour.all() or not tumour.any():
        return torch.zeros(2, dtype=torch.float64)
    area = roc_auc_score(tumour.numpy(), made.numpy())
    return torch.tensor([area, 1.0], dtype=torch.float64)
