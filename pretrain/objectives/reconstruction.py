"""Loss of predicted patches: MAGPIE's eq. 7, with targets normalised by patch (He et al. 2022).

Shapes: P pairs of a predicted position and a volume, p patch side.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.pretrain.objectives.averages import global_mean, mean_over_studies

_EPSILON = 1e-6


def normalise(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches [P, p³] by their own mean and standard deviation, and these two [P, 1]."""
    mean = target.mean(1, keepdim=True)
    deviation = (target.var(1, keepdim=True, correction=0) + _EPSILON).sqrt()
    return (target - mean) / deviation, mean, deviation


def reconstruction_loss(
    predicted: Tensor,
    target: Tensor,
    study: Tensor,
    studies: int,
    *,
    normalised: bool = True,
    by_study: bool = True,
    distance: Callable[..., Tensor] = F.mse_loss,
) -> Tensor:
    """Mean distance of the voxels of a patch, averaged over patches.

    Patches without tissue in their sequence do not count; nor do studies without any patch that
    counts.

    Args:
        predicted: [P, p³], normalised if `normalised`.
        target: [P, p³] as in the image.
        study: [P] int64.
        studies: Number of studies of this process.
        normalised: Compare with patches normalised by their own mean and deviation.
        by_study: Average within each study first, so that a study with four sequences weighs as
            much as one with a single sequence; otherwise all patches weigh the same.
        distance: `F.mse_loss` or `F.l1_loss`.

    Returns:
        Scalar, float32; its mean over the processes is the loss of their joint batch.
    """
    with torch.autocast(target.device.type, enabled=False):
        target = target.float()
        wanted = normalise(target)[0] if normalised else target
        error = distance(predicted.float(), wanted, reduction="none").mean(1)
        counts = target.ne(0).any(1).float()
        if by_study:
            return mean_over_studies(error, counts, study, studies)
        return global_mean(error, counts)
