"""Trilinear reading of a map at fractional voxels, what deformable layers have in common."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_voxels(x: Tensor, where: Tensor) -> Tensor:
    """Values between voxels; outside of the map it is 0, as zero padding of a convolution has it.

    Args:
        x: [B, C, D, H, W].
        where: [B, d, h, w, 3] positions along D, H, W in voxels of `x`; whole numbers are voxel
            centres.

    Returns:
        [B, C, d, h, w] float32: in bfloat16 a position could not be told from its neighbours.
    """
    with torch.autocast(x.device.type, enabled=False):
        sides = torch.tensor(x.shape[-3:], device=x.device)
        # grid_sample counts W first, and from -1 to 1 between the outer faces of the map.
        grid = ((2 * where.float() + 1) / sides - 1).flip(-1)
        return F.grid_sample(x.float(), grid, mode="bilinear", align_corners=False)


def voxel_centres(sides: torch.Size, device: torch.device) -> Tensor:
    """[D, H, W, 3] float32, the position of every voxel of a map with these sides."""
    axes = [torch.arange(side, device=device, dtype=torch.float32) for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
