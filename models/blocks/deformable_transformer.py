"""Transformer blocks whose attention reads a pyramid and whose feed-forward part can be sparse.

In MAGPIE the mixture of experts sits in a "transformer-based encoder" and MS-DA in the encoder;
the paper does not say how they join. Together they make one ordinary pre-norm block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.msda import MultiScaleDeformableAttention
from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.moe.router import Decision
from gliomoe.models.recompute import Recomputable


class DeformableAttentionLayer(Recomputable):
    """Adds to a map what its voxels read from the pyramid."""

    def __init__(self, channels: int, scales: Sequence[int], width: int, heads: int, points: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = MultiScaleDeformableAttention(channels, scales, width, heads, points)

    def forward(self, x: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """The map with its attention added.

        Args:
            x: [B, C, D, H, W].
            scales: [B, C_s, …], as for `MultiScaleDeformableAttention`.

        Returns:
            [B, C, D, H, W].
        """
        return x + self.attention(self.norm(x.movedim(1, -1)), scales).movedim(-1, 1)


class FeedForwardLayer(Recomputable):
    """Adds a feed-forward layer or a mixture of experts, at the kept positions alone."""

    def __init__(self, channels: int, feed_forward: FeedForward | MixtureOfExperts):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Decision | None]:
        """The map with its feed-forward part added, and what a router decided.

        Args:
            x: [B, C, D, H, W].
            kept: [B, D, H, W] bool; other positions pass unchanged and cost nothing.

        Returns:
            [B, C, D, H, W], and the decision for the kept positions, study after study, or None.
        """
        x = x.movedim(1, -1)
        tokens, decision = self.norm(x[kept]), None
        if isinstance(self.feed_forward, MixtureOfExperts):
            tokens, decision = self.feed_forward(tokens)
        else:
            tokens = self.feed_forward(tokens)
        change = torch.zeros_like(x)
        change[kept] = tokens.to(x.dtype)
        return (x + change).movedim(-1, 1), decision
