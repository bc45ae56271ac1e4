"""Reconstruction loss (MAGPIE, eq. 7) with targets normalised by patch (He et al. 2022).

Shapes: P pairs of a predicted position and a volume, p patch side.
"""

import torch
from torch import Tensor

from gliomoe.pretrain.engine import distributed

_EPSILON = 1e-6


def normalise(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches [P, p³] by their own mean and standard deviation, and these two [P, 1]."""
    mean = target.mean(1, keepdim=True)
    deviation = (target.var(1, keepdim=True, correction=0) + _EPSILON).sqrt()
    return (target - mean) / deviation, mean, deviation


def reconstruction_loss(predicted: Tensor, target: Tensor, study: Tensor, studies: int) -> Tensor:
    """Mean squared error, averaged within each study, then over studies.

    A study with four sequences weighs as much as one with a single sequence. Patches without
    tissue in their sequence do not count; nor do studies without any patch that counts.

    Args:
        predicted: [P, p³], normalised.
        target: [P, p³] as in the image.
        study: [P] int64.
        studies: Number of studies.

    Returns:
        Scalar, float32.
    """
    with torch.autocast(target.device.type, enabled=False):
        wanted, _, _ = normalise(target.float())
        error = (predicted.float() - wanted).square().mean(1)
        return mean_over_studies(error, target.ne(0).any(1).float(), study, studies)


def mean_over_studies(error: Tensor, counts: Tensor, study: Tensor, studies: int) -> Tensor:
    """Mean within each study, then over the studies of all processes that have anything to count.

    Args:
        error: [P] float32.
        counts: [P] float32, 1 for what counts, 0 for what does not.
        study: [P] int64.
        studies: Number of studies of this process.

    Returns:
        Scalar whose mean over the processes is the mean over all their studies, however unevenly
        these are shared out; with its gradient.
    """
    total = error.new_zeros(studies).index_add(0, study, error * counts)
    number = error.new_zeros(studies).index_add(0, study, counts)
    mean = total / number.clamp(min=1)
    return mean.sum() / distributed.mean(number.gt(0).float().sum()).clamp(min=_EPSILON)
