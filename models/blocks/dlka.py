"""Deformable large-kernel attention (MAGPIE, D-LKA, eq. 5; Azad et al. 2024).

Notable: a deformable kernel of 21³ taps is out of reach in three dimensions. As in the code that
Azad et al. published, the large kernel is a depth-wise 5³ and a depth-wise 7³ of dilation 3, and
what deforms is one dense 3³; its order before the large kernel is that of eq. 5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gliomoe.models.blocks.normalisation import InstanceNorm
from gliomoe.models.blocks.sampling import sample_voxels, voxel_centres
from gliomoe.models.errors import ModelError
from gliomoe.models.recompute import Recomputable

MODES = ("warp", "deformable")


class DeformableConv3d(nn.Module):
    """Dense 3³ convolution whose taps each read where a learned offset says (Dai et al. 2017).

    Offsets start at 0, where it is an ordinary convolution with zero padding.
    """

    taps = 27

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3, 3))
        self.offsets = _offsets(channels, self.taps)
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        offsets = self.offsets(x).float().unflatten(1, (self.taps, 3)).permute(1, 0, 3, 4, 5, 2)
        shifts = voxel_centres(torch.Size((3, 3, 3)), x.device).flatten(0, 2) - 1
        weights = self.weight.flatten(2).unbind(2)
        total: Tensor | None = None
        for shift, offset, weight in zip(shifts, offsets, weights, strict=True):
            # Computed again in the backward pass: 27 copies of the map would be kept otherwise.
            part = checkpoint(_tap, x, shift, offset, weight, use_reentrant=False)
            total = part if total is None else total + part
        assert total is not None
        return total


class WarpedConv3d(nn.Module):
    """3³ convolution of a map that one shared offset field has deformed.

    One reading of the map instead of 27; the price is that the taps move together.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.offsets = _offsets(channels, 1)
        self.convolution = nn.Conv3d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        offsets = self.offsets(x).float().movedim(1, -1)
        where = voxel_centres(x.shape[2:], x.device) + offsets
        return self.convolution(sample_voxels(x, where))


class DeformableLargeKernelAttention(Recomputable):
    """x + project(u · attention(u)), u = gelu(project(norm(x))) (MAGPIE, eq. 5).

    The attention map is what the deformable and the large kernels make of u, with no softmax, as
    in large-kernel attention (Guo et al. 2022). With the three kernels a voxel sees 25³ others.
    """

    def __init__(self, channels: int, mode: str):
        super().__init__()
        if mode not in MODES:
            raise ModelError(f"unknown mode {mode!r} of D-LKA; known: {', '.join(MODES)}")
        self.norm = InstanceNorm(channels, affine=True)
        self.before = nn.Conv3d(channels, channels, 1)
        self.deform = DeformableConv3d(channels) if mode == "deformable" else WarpedConv3d(channels)
        self.local = nn.Conv3d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.far = nn.Conv3d(
            channels, channels, 7, padding=9, dilation=3, groups=channels, bias=False
        )
        self.mix = nn.Conv3d(channels, channels, 1)
        self.after = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        u = F.gelu(self.before(self.norm(x)))
        return x + self.after(u * self.mix(self.far(self.local(self.deform(u)))))


def _offsets(channels: int, fields: int) -> nn.Conv3d:
    """Convolution to offset fields along D, H, W, all 0 at first."""
    convolution = nn.Conv3d(channels, 3 * fields, 3, padding=1)
    nn.init.zeros_(convolution.weight)
    nn.init.constant_(convolution.get_parameter("bias"), 0.0)
    return convolution


def _tap(x: Tensor, shift: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """One tap of a deformable convolution: read, then mix channels.

    Args:
        x: [B, C, D, H, W].
        shift: [3], of the tap from the middle of the kernel.
        offset: [B, D, H, W, 3].
        weight: [C, C].
    """
    where = voxel_centres(x.shape[2:], x.device) + shift + offset
    return F.conv3d(sample_voxels(x, where), weight[..., None, None, None])
