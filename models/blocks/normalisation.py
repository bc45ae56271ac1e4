"""Normalisation of maps, by name, as the published systems ask for it."""

import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.errors import ModelError

NORMS = ("batch", "group")

GROUPS = 8
"""Most groups of group normalisation; fewer where the channels do not divide."""


class BatchNorm(nn.BatchNorm3d):
    """Batch normalisation that also takes one voxel of one study in training.

    The variance of one value is undefined and torch refuses it; such a map, the coarsest level of
    a crop no larger than the stride, is normalised by the running statistics, as in evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        if self.training and input.numel() == input.shape[1]:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def normalisation(kind: str, channels: int) -> nn.Module:
    """A normalisation layer for maps [B, C, D, H, W].

    Args:
        kind: `batch` (Ioffe and Szegedy 2015), or `group` (Wu and He 2018), which treats each
            study by itself and so suits batches of one or two.
        channels: C.
    """
    check_norm(kind)
    if kind == "batch":
        return BatchNorm(channels)
    groups = next(n for n in range(min(GROUPS, channels), 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


def check_norm(kind: str) -> None:
    """`ModelError` for a normalisation that is not known."""
    if kind not in NORMS:
        raise ModelError(f"unknown norm {kind!r}; known: {', '.join(NORMS)}")
