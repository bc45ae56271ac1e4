"""Marker and grade heads: what the predicted tumour looks like, in one vector per study.

Notable: the predicted regions gate the pooling and are detached, so that a few marker labels do
not bend the segmentation.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.features import Features
from gliomoe.models.fusion import segment_softmax
from gliomoe.models.heads.regions import REGIONS
from gliomoe.models.tissue import pad_to_multiple

MARKERS = {"idh": 1, "1p19q": 1, "tert": 1, "grade": 3, "hgg": 1}
"""Task → logits: three for WHO 2, 3, 4, one for a binary marker (1 is mutant, codeleted, HGG)."""

PARTS = ("enhancing", "core without it", "oedema", "core", "whole")
"""Of a tumour, whose sizes tell much about its markers."""

EPSILON = 1e-4
"""Least gate, so that a study with no predicted tumour still pools over its tissue."""


class MarkerHead(nn.Module):
    """One linear layer per task over a description of the study.

    The description: the encoder's plain pooled vector with tokens pooled by attention gated by the
    whole tumour and, where the model segments, mean detail features of each region, and sizes.

    Attributes:
        groups: Numbers in each part of the description, in order.
    """

    def __init__(self, tasks: Sequence[str], width: int, detail: int, patch_size: int, gated: bool):
        super().__init__()
        self.patch_size = patch_size
        self.groups = (2 * width, REGIONS * detail, len(PARTS)) if gated else (2 * width,)
        self.attention = nn.Linear(width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in self.groups[:2])
        described = sum(self.groups)
        self.classify = nn.ModuleDict({task: nn.Linear(described, MARKERS[task]) for task in tasks})

    def forward(self, features: Features, seg: Tensor | None, spacing: Tensor) -> dict[str, Tensor]:
        """Task → logits [B, classes].

        Args:
            features: Of all tissue, with the pyramid.
            seg: [B, 3, D, H, W] logits of the regions; None for a model that was built without.
            spacing: [B, 3] mm.
        """
        description = self.describe(features, seg, spacing)
        return {task: linear(description) for task, linear in self.classify.items()}

    def describe(self, features: Features, seg: Tensor | None, spacing: Tensor) -> Tensor:
        """[B, sum of `groups`], what the classifiers see; arguments as those of `forward`."""
        scores = self.attention(features.tokens).squeeze(-1).float()
        regions = None if seg is None else seg.detach().float().sigmoid()
        if regions is not None:
            scores = scores + (self._gate(regions[:, 2], features) + EPSILON).log()
        weights = segment_softmax(scores, features.study, len(features.pooled))
        weighted = features.tokens * weights.unsqueeze(1).to(features.tokens.dtype)
        gated = torch.zeros_like(features.pooled).index_add(0, features.study, weighted)
        learned = [torch.cat([features.pooled, gated], dim=1)]
        if regions is not None:
            learned.append(region_means(regions, features.pyramid[0]))
        parts = [norm(values) for norm, values in zip(self.norms, learned, strict=True)]
        if regions is not None:
            parts.append(region_sizes(regions, spacing))
        return torch.cat(parts, dim=1)

    def _gate(self, probability: Tensor, features: Features) -> Tensor:
        """Mean probability [N] of the whole tumour within the patch of each token."""
        padded = pad_to_multiple(probability.unsqueeze(1), self.patch_size)
        grid = F.avg_pool3d(padded, self.patch_size).squeeze(1)
        return grid[features.study, *features.position.unbind(1)]


def region_means(regions: Tensor, detail: Tensor) -> Tensor:
    """Mean features within each region, [B, R · C].

    Args:
        regions: [B, R, D, H, W] probabilities.
        detail: [B, C, D, H, W].
    """
    shares = regions.flatten(2)
    sums = shares @ detail.flatten(2).transpose(1, 2).float()
    return (sums / (shares.sum(2, keepdim=True) + 1)).flatten(1)


def region_sizes(regions: Tensor, spacing: Tensor) -> Tensor:
    """[B, PARTS] logarithm of one plus the millilitres of each part.

    Args:
        regions: [B, 3, D, H, W] probabilities of ET, TC, WT.
        spacing: [B, 3] mm.
    """
    et, tc, wt = (regions > 0.5).flatten(2).sum(2).unbind(1)
    voxels = torch.stack([et, (tc - et).clamp(min=0), (wt - tc).clamp(min=0), tc, wt], dim=1)
    return (voxels * spacing.prod(1, keepdim=True) / 1000).log1p()
