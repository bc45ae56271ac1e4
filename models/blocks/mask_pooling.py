"""Pooling over the predicted tumour: from maps to one vector per study.

Notable: masks come at full resolution and are averaged onto the grid of the features, so that a
voxel of the coarse grid counts by the share of it that is tumour.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.tissue import pad_to_multiple

FLOOR = 1e-4
"""Least mask, so that a study in which no tumour is found is pooled over all of it."""


def resample_mask(mask: Tensor, factor: int) -> Tensor:
    """Mean of a mask [B, 1, D, H, W] within cubes of edge `factor`: [B, 1, ceil(D/factor), …]."""
    return F.avg_pool3d(pad_to_multiple(mask, factor), factor) if factor > 1 else mask


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean of features weighted by a mask; the plain mean where the mask is empty.

    Args:
        features: [B, C, d, h, w].
        mask: [B, 1, d, h, w] in 0 to 1.

    Returns:
        [B, C] float32.
    """
    weights = mask.float() + FLOOR
    return (features.float() * weights).sum((2, 3, 4)) / weights.sum((2, 3, 4))


class MaskPooling(nn.Module):
    """Attention-based global pooling of features gated by a soft mask (MGMT-Net, §3.2 and §3.4).

    s = w · tanh(V F) at each voxel, and z = Σ m exp(s) F / Σ m exp(s): features times mask,
    weighted by an attention that is normalised over the mask. The formulas are missing in the
    text; its two "trainable projection weights" are V and w. Normalised over the whole map
    instead, z would shrink with the share of the map that is tumour.

    An empty mask, and none, give plain attention pooling.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.project = nn.Linear(channels, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled features and the attention.

        Args:
            features: [B, C, d, h, w].
            mask: [B, 1, d, h, w] in 0 to 1, or None.

        Returns:
            z [B, C], and the weights [B, 1, d, h, w] that sum to 1 over a study; both float32.
        """
        voxels = features.movedim(1, -1)
        scores = self.score(torch.tanh(self.project(voxels))).movedim(-1, 1).float()
        if mask is not None:
            scores = scores + (mask.float() + FLOOR).log()
        weights = scores.flatten(2).softmax(2).unflatten(2, scores.shape[2:])
        return (features.float() * weights).sum((2, 3, 4)), weights
