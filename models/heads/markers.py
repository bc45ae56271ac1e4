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

EPSILON = 1e-4
"""Least gate, so that a study with no predicted tumour still pools over its tissue."""


class MarkerHead(nn.Module):
    """One linear layer per task over a description of the study.

    The description: tokens pooled by attention gated by the whole tumour, the encoder's plain
    pooled vector and, where the model segments, mean detail features and size of each region.
    """

    def __init__(self, tasks: Sequence[str], width: int, detail: int, patch_size: int, gated: bool):
        super().__init__()
        self.patch_size = patch_size
        self.attention = nn.Linear(width, 1)
        described = 2 * width + (REGIONS * (detail + 1) if gated else 0)
        self.norm = nn.LayerNorm(described)
        self.classify = nn.ModuleDict({task: nn.Linear(described, MARKERS[task]) for task in tasks})

    def forward(self, features: Features, seg: Tensor | None) -> dict[str, Tensor]:
        """Task → logits [B, classes].

        Args:
            features: Of all tissue, with the pyramid.
            seg: [B, 3, D, H, W] logits of the regions; None for a model that was built without.
        """
        scores = self.attention(features.tokens).squeeze(-1).float()
        description = [features.pooled]
        if seg is not None:
            regions = seg.detach().float().sigmoid()
            scores = scores + (self._gate(regions[:, 2], features) + EPSILON).log()
            description += describe_regions(regions, features.pyramid[0])
        weights = segment_softmax(scores, features.study, len(features.pooled))
        pooled = torch.zeros_like(features.pooled)
        weighted = features.tokens * weights.unsqueeze(1).to(features.tokens.dtype)
        description.append(pooled.index_add(0, features.study, weighted))
        vector = self.norm(torch.cat(description, dim=1))
        return {task: linear(vector) for task, linear in self.classify.items()}

    def _gate(self, probability: Tensor, features: Features) -> Tensor:
        """Mean probability [N] of the whole tumour within the patch of each token."""
        padded = pad_to_multiple(probability.unsqueeze(1), self.patch_size)
        grid = F.avg_pool3d(padded, self.patch_size).squeeze(1)
        return grid[features.study, *features.position.unbind(1)]


def describe_regions(regions: Tensor, detail: Tensor) -> list[Tensor]:
    """Mean features within each region, and the logarithm of its share of the volume.

    Args:
        regions: [B, R, D, H, W] probabilities.
        detail: [B, C, D, H, W].

    Returns:
        [B, R · C] and [B, R].
    """
    shares = regions.flatten(2)
    size = shares.sum(2)
    sums = shares @ detail.flatten(2).transpose(1, 2).float()
    means = sums / (size.unsqueeze(2) + 1)
    return [means.flatten(1), (size / shares.shape[2] + EPSILON).log()]
