"""A picture of what is reconstructed: complete, seen and filled-in slices, a row a sequence."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.pretrain.samples.views import Views

_GAP = 2
_SIDE = 192


def reconstruction_picture(views: Views, filled: Tensor, patch_size: int) -> Tensor:
    """The middle slice of the first study's first view.

    Args:
        views: What the objective saw.
        filled: [V, 1, D, H, W], the complete volumes with the masked positions predicted.
        patch_size: Side of a patch, voxels.

    Returns:
        [3, H, W] float32 from 0 to 1. Columns: complete, seen by the encoder (hidden sequences are
        empty, masked patches blue), filled in.
    """
    chosen = (views.complete.study == 0).nonzero().flatten()
    slab = filled.shape[2] // 2
    masked = views.mask.masked[0]
    for axis in range(3):
        masked = masked.repeat_interleave(patch_size, axis)
    shown = set(views.visible.sequence[views.visible.study == 0].tolist())
    rows = []
    for volume in chosen.tolist():
        complete = _grey(views.complete.voxels[volume, 0, slab])
        seen = complete * (int(views.complete.sequence[volume]) in shown)
        seen = torch.where(masked[slab], seen.new_tensor([0.1, 0.15, 0.4])[:, None, None], seen)
        rows.append(torch.stack([complete, seen, _grey(filled[volume, 0, slab])]))
    tiles = F.pad(torch.stack(rows), (0, _GAP, 0, _GAP))
    picture = tiles.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    scale = max(1, _SIDE // filled.shape[-1])
    return picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2).cpu()


def _grey(image: Tensor) -> Tensor:
    """[H, W] → [3, H, W] from 0 to 1, nose up."""
    return image.float().clamp(0, 1).expand(3, -1, -1)
