"""Multi-scale deformable attention (MAGPIE, MS-DA, eq. 6; Zhu et al. 2021, "Deformable DETR").

Notable: a query reads S·N points per head instead of all voxels, so the cost grows with the number
of queries alone. Offsets count voxels of the scale that is read, so that a coarse scale reaches
farther.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.sampling import sample_voxels, voxel_centres

SPREAD = 1.5
"""Standard deviation of the first offsets, in voxels of their scale: points that all start in one
place would learn the same."""


class MultiScaleDeformableAttention(nn.Module):
    """Σ_s Σ_n A_{s,n} · W_s · F_s(p + Δp_{s,n}) for every voxel p of one map, with heads.

    The paper names neither heads nor widths: the heads share `width` channels, and a last
    projection mixes them, as in Deformable DETR.
    """

    def __init__(
        self, channels: int, scales: Sequence[int], width: int, heads: int, points: int
    ) -> None:
        """Weights.

        Args:
            channels: Of the map whose voxels ask.
            scales: Channels of each of the S maps that are read.
            width: Channels of all heads together.
            heads: Each with points and attention weights of its own.
            points: N, of a head on one scale.
        """
        super().__init__()
        self.heads, self.points = heads, points
        taken = heads * len(scales) * points
        self.offsets = nn.Linear(channels, 3 * taken)
        self.attention = nn.Linear(channels, taken)
        self.values = nn.ModuleList(nn.Conv3d(c, width, 1, bias=False) for c in scales)
        self.output = nn.Linear(width, channels)
        # Near 0, not 0 as in Deformable DETR: the norm before it shall have a gradient at once.
        nn.init.trunc_normal_(self.offsets.weight, std=0.02)
        nn.init.normal_(self.offsets.bias, std=SPREAD)
        nn.init.trunc_normal_(self.attention.weight, std=0.02)
        nn.init.zeros_(self.attention.bias)

    def forward(self, query: Tensor, scales: Sequence[Tensor]) -> Tensor:
        """What each voxel of a map reads.

        Args:
            query: [B, d, h, w, C].
            scales: S maps [B, C_s, D_s, H_s, W_s] of the same field of view.

        Returns:
            [B, d, h, w, C].
        """
        sides = query.shape[1:4]
        offsets = self.offsets(query).float().unflatten(-1, (self.heads, len(scales), -1, 3))
        weights = self.attention(query).float().unflatten(-1, (self.heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, (len(scales), -1))
        centres = voxel_centres(sides, query.device) + 0.5
        mixed: Tensor | None = None
        for number, (scale, value) in enumerate(zip(scales, self.values, strict=True)):
            zoom = [there / here for there, here in zip(scale.shape[2:], sides, strict=True)]
            middle = centres * torch.tensor(zoom, device=query.device) - 0.5
            where = middle[..., None, None, :] + offsets[..., number, :, :]
            part = self._read(value(scale), where, weights[..., number, :])
            mixed = part if mixed is None else mixed + part
        assert mixed is not None
        return self.output(mixed)

    def _read(self, values: Tensor, where: Tensor, weights: Tensor) -> Tensor:
        """One scale: weighted sum over its points.

        Args:
            values: [B, heads · c, D_s, H_s, W_s].
            where: [B, d, h, w, heads, N, 3] in voxels of the scale.
            weights: [B, d, h, w, heads, N].

        Returns:
            [B, d, h, w, heads · c] float32.
        """
        sides = where.shape[1:4]
        values = values.unflatten(1, (self.heads, -1)).flatten(0, 1)
        where = where.movedim(4, 1).flatten(0, 1).flatten(1, 3)
        weights = weights.movedim(4, 1).flatten(0, 1).flatten(1, 3)
        read = sample_voxels(values, where.unsqueeze(3)).squeeze(4)
        summed = (read * weights.unsqueeze(1)).sum(-1)
        return (
            summed.unflatten(0, (-1, self.heads)).flatten(1, 2).unflatten(-1, sides).movedim(1, -1)
        )
