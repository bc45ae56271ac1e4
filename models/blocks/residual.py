"""Residual blocks of 3³ convolutions (He et al. 2016), as the papers and as nnU-Net have them."""

import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import InstanceNorm, normalisation
from gliomoe.models.recompute import Recomputable

SLOPE = 0.01
"""Of the leaky ReLU."""


def conv3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv3d:
    """A 3³ convolution without bias that keeps the variance through ReLU (He et al. 2015)."""
    layer = nn.Conv3d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def conv_norm_relu(channels_in: int, channels_out: int, norm: str, stride: int = 1) -> nn.Module:
    """Convolution of 3³, normalisation, ReLU; side n becomes ceil(n / stride)."""
    return nn.Sequential(
        conv3(channels_in, channels_out, stride),
        normalisation(norm, channels_out),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """ReLU of two normalised convolutions of 3³ beside an identity."""

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.first = conv_norm_relu(channels, channels, norm)
        self.second = conv3(channels, channels)
        self.norm = normalisation(norm, channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return self.activation(x + self.norm(self.second(self.first(x))))


class ResidualUnit(Recomputable):
    """Block of nnU-Net's residual encoders (Isensee et al. 2024), which can halve the resolution.

    Where shapes differ the shortcut is the mean over the stride and a 1³ convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.first = nn.Conv3d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = InstanceNorm(channels_out, affine=True)
        self.second = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = InstanceNorm(channels_out, affine=True)
        self.shortcut = (
            nn.Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → [B, C', D/stride, H/stride, W/stride]."""
        y = F.leaky_relu(self.first_norm(self.first(x)), SLOPE)
        y = self.second_norm(self.second(y))
        x = F.avg_pool3d(x, self.stride) if self.stride > 1 else x
        return F.leaky_relu(y + (x if self.shortcut is None else self.shortcut(x)), SLOPE)
