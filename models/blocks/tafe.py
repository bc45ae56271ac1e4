"""Tumour-aware feature encoding: pooled stages of an encoder that also learns to segment.

What makes the features aware of the tumour is the segmentation loss, which reaches the same
encoder (MTS-UNET, Mechanism 1); the module itself only pools and projects.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TumourAwareFeatures(nn.Module):
    """Global average pooling of the last stages, concatenated, one projection (MTS-UNET, TAFE).

    The component map of the paper pools stages 3 and 4, its ablation 1 to 4 of them without a
    significant difference. The rest of its fully connected layer is chosen: the width, and layer
    normalisation with GELU, since pooled features of two patients differ by a few per cent, with
    which plain ReLU dies.
    """

    def __init__(self, channels: Sequence[int], width: int, dropout: float):
        """As many stages as `channels` has, the coarsest last."""
        super().__init__()
        self.stages = len(channels)
        self.project = nn.Linear(sum(channels), width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """[B, width] of the last levels [B, C_i, d, h, w] of a pyramid."""
        pooled = [level.float().mean((2, 3, 4)) for level in pyramid[-self.stages :]]
        return self.dropout(F.gelu(self.norm(self.project(torch.cat(pooled, dim=1)))))
