"""MedNeXt blocks (Roy et al. 2023, "MedNeXt: Transformer-driven Scaling of ConvNets"), 3-D.

A depth-wise k³, normalisation by channel, expansion by a 1³, GELU, compression by a 1³, beside a
shortcut. Down and up blocks change resolution in the depth-wise convolution.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import InstanceNorm
from gliomoe.models.recompute import Recomputable


class MedNeXtBlock(Recomputable):
    """At one resolution; the shortcut is the identity."""

    def __init__(self, channels: int, expansion: int, kernel: int):
        super().__init__()
        self.depthwise = nn.Conv3d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
        )
        self.mix = _mix(channels, channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return x + self.mix(self.depthwise(x))


class MedNeXtDown(Recomputable):
    """To half the resolution; the shortcut is a 1³ of stride 2."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int):
        super().__init__()
        self.depthwise = nn.Conv3d(
            channels_in, channels_in, kernel, 2, kernel // 2, groups=channels_in, bias=False
        )
        self.mix = _mix(channels_in, channels_out, expansion)
        self.shortcut = nn.Conv3d(channels_in, channels_out, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → [B, C', D/2, H/2, W/2]."""
        return self.shortcut(x) + self.mix(self.depthwise(x))


class MedNeXtUp(Recomputable):
    """To twice the resolution, by transposed convolutions."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int):
        super().__init__()
        self.depthwise = nn.ConvTranspose3d(
            channels_in, channels_in, kernel, 2, kernel // 2, groups=channels_in, bias=False
        )
        self.mix = _mix(channels_in, channels_out, expansion)
        self.shortcut = nn.ConvTranspose3d(channels_in, channels_out, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → [B, C', 2D, 2H, 2W]."""
        # Both give 2n - 1 voxels a side: the first plane is padded, as in the published code.
        return F.pad(self.shortcut(x) + self.mix(self.depthwise(x)), (1, 0, 1, 0, 1, 0))


def _mix(channels_in: int, channels_out: int, expansion: int) -> nn.Sequential:
    """Normalisation, expansion, GELU, compression."""
    return nn.Sequential(
        InstanceNorm(channels_in, affine=True),
        nn.Conv3d(channels_in, expansion * channels_in, 1),
        nn.GELU(),
        nn.Conv3d(expansion * channels_in, channels_out, 1),
    )
