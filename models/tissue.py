"""Where there is tissue: the patch positions that a transformer spends tokens on."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Batch(Protocol):
    """What a model takes: a `StudyBatch`, by its fields."""

    @property
    def voxels(self) -> Tensor:
        """[V, 1, D, H, W] float, background exactly 0."""

    @property
    def sequence(self) -> Tensor:
        """[V] int64."""

    @property
    def study(self) -> Tensor:
        """[V] int64, ascending."""

    @property
    def spacing(self) -> Tensor:
        """[B, 3] float, mm."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Study keys for messages, B of them or none."""

    @property
    def genes(self) -> Tensor | None:
        """[B, G, A] float, NaN for unknown, or None."""


def pad_to_multiple(voxels: Tensor, multiple: int) -> Tensor:
    """Zeros after the last voxel of each side until the sides are multiples.

    Args:
        voxels: [..., D, H, W].
        multiple: Of what, in voxels.
    """
    padding = [end for side in reversed(voxels.shape[-3:]) for end in (0, -side % multiple)]
    return F.pad(voxels, padding) if any(padding) else voxels


def crop_level(level: Tensor, sides: tuple[int, ...], factor: int) -> Tensor:
    """A map at 1 / factor of the resolution without what padding added.

    Args:
        level: [B, C, d, h, w].
        sides: D, H, W before padding; ceil(side / factor) is left along each axis.
        factor: A power of two.
    """
    d, h, w = (-(-side // factor) for side in sides)
    return level[..., :d, :h, :w]


def patches(voxels: Tensor, patch_size: int) -> Tensor:
    """A view of a volume as a grid of patches.

    Args:
        voxels: [V, 1, D, H, W] with sides that are multiples of `patch_size` P.
        patch_size: P, in voxels.

    Returns:
        [V, D/P, H/P, W/P, P, P, P].
    """
    return (
        voxels.squeeze(1)
        .unflatten(3, (-1, patch_size))
        .unflatten(2, (-1, patch_size))
        .unflatten(1, (-1, patch_size))
        .permute(0, 1, 3, 5, 2, 4, 6)
    )


def tissue_positions(batch: Batch, patch_size: int) -> Tensor:
    """Patches in which any sequence of the study has a voxel other than 0.

    Args:
        batch: Studies of any sides; the grid counts a last, partial patch.
        patch_size: Edge of a patch in voxels.

    Returns:
        [B, Gd, Gh, Gw] bool.
    """
    grid = patches(pad_to_multiple(batch.voxels, patch_size), patch_size)
    filled = grid.ne(0).flatten(4).any(dim=4)
    counts = filled.new_zeros((len(batch.spacing), *filled.shape[1:]), dtype=torch.int32)
    return counts.index_add_(0, batch.study, filled.int()) > 0
