"""Residual blocks of a U-Net encoder (Isensee et al. 2024, "nnU-Net Revisited"), 3-D."""

import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import ChannelNorm
from gliomoe.models.recompute import Recomputable

SLOPE = 0.01
"""Of the leaky ReLU."""


class ResidualUnit(Recomputable):
    """Two convolutions of 3³ beside a shortcut; with a stride of 2 it halves the resolution.

    Where shapes differ the shortcut is the mean over the stride and a 1³ convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.first = nn.Conv3d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = ChannelNorm(channels_out)
        self.second = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = ChannelNorm(channels_out)
        self.shortcut = (
            nn.Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → [B, C', D/stride, H/stride, W/stride]."""
        y = F.leaky_relu(self.first_norm(self.first(x)), SLOPE)
        y = self.second_norm(self.second(y))
        x = F.avg_pool3d(x, self.stride) if self.stride > 1 else x
        return F.leaky_relu(y + (x if self.shortcut is None else self.shortcut(x)), SLOPE)
