"""Reconstruction loss (MAGPIE, eq. 7) with targets normalised by patch (He et al. 2022).

Shapes: P pairs of a predicted position and a volume, p patch side.
"""

import torch
from torch import Tensor

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
        counts = target.ne(0).any(1).float()
        total = error.new_zeros(studies).index_add(0, study, error * counts)
        number = error.new_zeros(studies).index_add(0, study, counts)
        mean = total / number.clamp(min=1)
        return mean.sum() / number.gt(0).sum().clamp(min=1)
