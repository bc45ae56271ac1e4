"""Encoders over the whole grid: what convolutional and windowed encoders have in common.

Notable: with `keep`, voxels of all other positions are 0, so features depend on kept positions
alone, as masked pretraining asks; every voxel is computed all the same.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.features import Features, Routing
from gliomoe.models.tissue import Batch, crop_level, pad_to_multiple, tissue_positions


@dataclass(frozen=True)
class Padded:
    """A batch whose sides are multiples of the stride and whose hidden positions are 0."""

    voxels: Tensor
    """[V, 1, D, H, W]."""
    sequence: Tensor
    """[V] int64."""
    study: Tensor
    """[V] int64, ascending."""
    spacing: Tensor
    """[B, 3]."""
    keys: tuple[str, ...]
    genes: Tensor | None
    shown: dict[str, Tensor] = field(default_factory=dict)
    """Where `maps` puts attention that reports can show: name → [B, n, D/2^i, H/2^i, W/2^i]."""


class DenseEncoder(Encoder):
    """Template: a child computes the maps, this class makes tokens of one of the levels.

    `patch_size` P ≤ `stride`: tokens are the map at 1 / P of the resolution, where P is a power
    of two; `width` are its channels. The pyramid goes on to the stride.
    """

    def maps(self, batch: Padded, kept: Tensor) -> tuple[list[Tensor], list[Routing]]:
        """The pyramid and what routers decided.

        Args:
            batch: Studies of sides that are multiples of `stride`.
            kept: [B, D/P, H/P, W/P] bool, the positions that get a token.

        Returns:
            [B, C_i, D/2^i, H/2^i, W/2^i] for i = 0 to log2(stride), and one `Routing` per mixture.
        """
        raise NotImplementedError

    def forward(self, batch: Batch, keep: Tensor | None = None) -> Features:
        """Encode a batch.

        Args:
            batch: Studies of any sides and any number of volumes each.
            keep: [B, Gd, Gh, Gw] bool, patch positions that are seen; None sees all, and tokens
                are those with tissue. A study may keep none: its `pooled` is 0.
        """
        sides = batch.voxels.shape[-3:]
        kept = tissue_positions(batch, self.patch_size) if keep is None else keep
        voxels = pad_to_multiple(batch.voxels, self.stride)
        grid = [side // self.patch_size for side in voxels.shape[-3:]]
        ends = [n - k for n, k in zip(grid, kept.shape[1:], strict=True)]
        padded = F.pad(kept, (0, ends[2], 0, ends[1], 0, ends[0]))
        if keep is not None:
            voxels = voxels * _enlarge(padded, self.patch_size)[batch.study, None]
        whole = Padded(voxels, batch.sequence, batch.study, batch.spacing, batch.keys, batch.genes)
        levels, routing = self.maps(whole, padded)

        where = kept.nonzero()
        study, position = where[:, 0], where[:, 1:]
        tokens = levels[self.patch_size.bit_length() - 1].movedim(1, -1)[padded].float()
        pooled = tokens.new_zeros(len(kept), self.width).index_add(0, study, tokens)
        pooled = pooled / torch.bincount(study, minlength=len(kept)).clamp(min=1).unsqueeze(1)
        if keep is not None:
            return Features(pooled, tokens, study, position, [], routing)
        pyramid = [crop_level(level, sides, 2**i) for i, level in enumerate(levels)]
        shown = {
            name: crop_level(shown, sides, voxels.shape[-1] // shown.shape[-1])
            for name, shown in whole.shown.items()
        }
        return Features(pooled, tokens, study, position, pyramid, routing, shown)


def _enlarge(kept: Tensor, patch_size: int) -> Tensor:
    """Positions [B, Gd, Gh, Gw] as voxels [B, D, H, W]."""
    for axis in (1, 2, 3):
        kept = kept.repeat_interleave(patch_size, axis)
    return kept
