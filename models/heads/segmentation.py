"""Segmentation head: a light U-Net-like decoder over the pyramid of an encoder."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.convolution import ConvNormAct, ResidualBlock
from gliomoe.models.heads.regions import region_layer


class SegmentationHead(nn.Module):
    """From the coarsest level up: project, enlarge twice, add the finer level, convolve."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        self.project = nn.ModuleList(
            nn.Conv3d(below, here, 1) for below, here in zip(channels[1:], channels, strict=False)
        )
        self.mix = nn.ModuleList(
            ConvNormAct(here, here) if level == 0 else ResidualBlock(here)
            for level, here in enumerate(channels[:-1])
        )
        self.logits = region_layer(channels[0])

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Logits [B, 3, D, H, W] of the overlapping regions.

        Args:
            pyramid: [B, C_i, ceil(D / 2^i), …] for i = 0, 1, …
        """
        x = pyramid[-1]
        for level in reversed(range(len(self.mix))):
            finer = pyramid[level]
            x = F.interpolate(self.project[level](x), scale_factor=2.0, mode="nearest")
            d, h, w = finer.shape[-3:]
            x = self.mix[level](x[..., :d, :h, :w] + finer)
        return self.logits(x)
