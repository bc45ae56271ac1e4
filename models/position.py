"""Rotary positions in three dimensions, in millimetres.

Notable: angles depend on millimetres, not on grid indices, so that one set of weights serves any
voxel spacing. Positions count from the centre of the grid; registers sit at the centre.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST_MM = 8.0
LONGEST_MM = 512.0
"""Wavelengths of the fastest and slowest rotation, geometrically spaced between."""


def centres(position: Tensor, grid: tuple[int, int, int], patch_mm: Tensor) -> Tensor:
    """Patch centres in millimetres from the centre of the grid.

    Args:
        position: [N, 3] int64 patch indices.
        grid: Patches along D, H, W.
        patch_mm: [N, 3] float, edges of a patch in mm.

    Returns:
        [N, 3] float32.
    """
    middle = (torch.tensor(grid, device=position.device) - 1) / 2
    return (position - middle) * patch_mm.float()


def rotary_angles(millimetres: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each channel of a head; pairs left over by the axes do not turn.

    Args:
        millimetres: [N, 3] float32.
        head_width: Channels of a head, even and at least 6.

    Returns:
        Two tensors [N, 1, 1, head_width] float32.
    """
    pairs = head_width // 6
    steps = torch.linspace(0, 1, pairs, device=millimetres.device)
    wavelength = SHORTEST_MM * (LONGEST_MM / SHORTEST_MM) ** steps
    angles = (millimetres[:, :, None] * (2 * math.pi / wavelength)).flatten(1)
    angles = F.pad(angles, (0, head_width // 2 - 3 * pairs)).repeat(1, 2)[:, None, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the channel pairs (i, i + half) of queries and keys.

    Args:
        x: [N, 2, heads, head_width].
        rotary: From `rotary_angles`.
    """
    cos, sin = (part.to(x.dtype) for part in rotary)
    return _Rotation.apply(x, cos, sin)


class _Rotation(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back: autograd's takes three times the passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(upstream, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The pairs of x turned by angles that are the same in both halves."""
    turned = x * cos
    for mine, other, sign in zip(turned.chunk(2, -1), x.chunk(2, -1)[::-1], (-1, 1), strict=True):
        mine.addcmul_(other, sin.chunk(2, -1)[0], value=sign)
    return turned
