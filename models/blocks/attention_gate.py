"""Additive attention gates for skip connections."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.tissue import pad_to_multiple

OPEN = 2.0
"""Bias of the gate at the start: sigmoid(2) = 0.88, since Oktay et al. let features pass first."""


class AttentionGate(nn.Module):
    """Gate of a skip connection by the coarser decoder map (Oktay et al. 2018, eq. 1-2).

    α = sigmoid(ψ · relu(W_x x + W_g g)) on the grid of g, enlarged trilinearly to that of x; W_x
    halves the resolution, as in the authors' grid attention. One α for all channels of a voxel.
    """

    def __init__(self, skip: int, gating: int, hidden: int):
        """Channels of the skip connection, of the gating map and in between."""
        super().__init__()
        self.skip = nn.Conv3d(skip, hidden, 2, stride=2, bias=False)
        self.gating = nn.Conv3d(gating, hidden, 1)
        self.score = nn.Conv3d(hidden, 1, 1)
        nn.init.constant_(self.get_parameter("score.bias"), OPEN)

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The gated skip connection, and its gate.

        Args:
            x: [B, C, D, H, W].
            g: [B, C_g, ceil(D/2), ceil(H/2), ceil(W/2)].

        Returns:
            [B, C, D, H, W], and α [B, 1, D, H, W] in 0 to 1.
        """
        hidden = torch.relu(self.skip(pad_to_multiple(x, 2)) + self.gating(g))
        gate = enlarge(self.score(hidden).sigmoid(), x.shape[-3:])
        return x * gate, gate


def enlarge(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """A map at twice the resolution, trilinearly, cut to `sides`, the grid of the finer level."""
    d, h, w = sides
    larger = F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
    return larger[..., :d, :h, :w]
