"""Normalisation that also works where a channel has a single value.

torch refuses to train on statistics of one value: instance normalisation of a map of one voxel,
batch normalisation of one study. Both occur here, on small crops and in batches of one.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation; a map of one voxel passes unchanged, for it would become 0."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return x if x.shape[2:].numel() == 1 else super().forward(x)


class BatchNorm(_BatchNorm):
    """Batch normalisation over vectors or maps; one value per channel meets the running statistics.

    These are not updated then, for one value has no variance. A network that only ever trains on
    such batches keeps mean 0 and variance 1.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Vectors and maps are both fine."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] or [B, C, D, H, W] → the same shape."""
        if self.training and x.numel() == x.shape[1]:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def allow_single_values(module: nn.Module) -> None:
    """Put these normalisations in the place of torch's, in place, before any training."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.InstanceNorm3d:
                affine = child.affine
                setattr(parent, name, InstanceNorm(child.num_features, child.eps, affine=affine))
            elif type(child) is nn.BatchNorm3d:
                setattr(parent, name, BatchNorm(child.num_features, child.eps, child.momentum))
