"""Normalisation of maps of any size, by name where a published system leaves the choice.

Notable: torch refuses to normalise a single voxel in training, which small crops have at the
coarsest level; the layers here do not.
"""

import torch
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


class ChannelNorm(nn.Module):
    """Instance normalisation, which group normalisation with one channel a group is.

    Notable: torch's modules refuse maps of a single voxel in training, which small crops have at
    the coarsest level; here such a map becomes the bias.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        cudnn = torch.backends.cudnn.enabled
        return torch.instance_norm(
            x, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn
        )

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return str(len(self.weight))


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
