"""Normalisation that also works where a channel has one value or few.

torch refuses to train on statistics of one value: instance normalisation of a map of one voxel,
batch normalisation of one study. Both occur here, on small crops and in small batches. Of two
values batch normalisation leaves the sign alone, and next to no gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gliomoe.models.errors import ModelError

NORMS = ("batch", "group")

GROUPS = 8
"""Most groups of group normalisation; fewer where the channels do not divide."""

FEW = 8
"""Fewer values of a channel than this are too few for statistics of their own."""


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation; a map of one voxel passes unchanged, for it would become 0."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return x if x.shape[2:].numel() == 1 else super().forward(x)


class BatchNorm(_BatchNorm):
    """Batch normalisation over vectors or maps, of torch's where there are enough values.

    With fewer than `FEW` values per channel the running statistics normalise in training too; the
    values join them first, as an exponential moving average that no gradient passes.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] or [B, C, D, H, W] → the same shape."""
        mean, variance = self.running_mean, self.running_var
        assert mean is not None and variance is not None and self.momentum is not None
        few = x.numel() < FEW * x.shape[1]
        if self.training and few:
            with torch.no_grad():
                values = x.detach().float().transpose(0, 1).flatten(1)
                mean.lerp_(values.mean(1), self.momentum)
                deviation = (values - mean.unsqueeze(1)).square().mean(1)
                variance.lerp_(deviation, self.momentum)
            # The next batch changes them in place; backward needs those of this one.
            mean, variance = mean.clone(), variance.clone()
        own = self.training and not few
        return F.batch_norm(x, mean, variance, self.weight, self.bias, own, self.momentum, self.eps)


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


def allow_few_values(module: nn.Module) -> None:
    """Put these normalisations in the place of torch's, in place, before any training."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.InstanceNorm3d:
                affine = child.affine
                setattr(parent, name, InstanceNorm(child.num_features, child.eps, affine=affine))
            elif type(child) is nn.BatchNorm3d:
                setattr(parent, name, BatchNorm(child.num_features, child.eps, child.momentum))
