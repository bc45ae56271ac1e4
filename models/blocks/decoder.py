"""U-Net decoder with residual blocks and, if asked for, attention gates on its skip connections."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.attention_gate import AttentionGate, enlarge
from gliomoe.models.blocks.normalisation import normalisation
from gliomoe.models.blocks.residual import conv3
from gliomoe.models.recompute import Recomputable


class UpBlock(Recomputable):
    """One step of the decoder (MGMT-Net, §3.3).

    Trilinear enlargement by two, a 3³ convolution, concatenation with the skip connection,
    normalisation and ReLU. A second 3³ convolution brings the concatenation back to the channels
    of the level, and the first one's result is added: the paper's residual connection needs equal
    channels on both sides. The sum is normalised too, so that logits start at a scale that learns.
    """

    def __init__(self, below: int, here: int, norm: str, gated: bool, dropout: float = 0.0):
        """`dropout` takes out whole channels of the concatenation."""
        super().__init__()
        self.refine = conv3(below, here)
        self.gate = AttentionGate(here, below, max(1, here // 2)) if gated else None
        self.join = nn.Sequential(
            normalisation(norm, 2 * here),
            nn.ReLU(inplace=True),
            nn.Dropout3d(dropout),
            conv3(2 * here, here),
        )
        self.norm = nn.Sequential(normalisation(norm, here), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor | None]:
        """Decoder map of the finer level, and the gate of its skip connection.

        Args:
            x: [B, C_below, ceil(D/2), ceil(H/2), ceil(W/2)].
            skip: [B, C, D, H, W], the encoder's map.

        Returns:
            [B, C, D, H, W], and [B, 1, D, H, W] in 0 to 1, or None without gates.
        """
        gate = None
        if self.gate is not None:
            skip, gate = self.gate(skip, x)
        refined = self.refine(enlarge(x, skip.shape[-3:]))
        joined = self.join(torch.cat([refined, skip], dim=1))
        return self.norm(refined + joined), gate


class Decoder(nn.Module):
    """`UpBlock`s from the coarsest level of a pyramid to full resolution."""

    def __init__(self, channels: Sequence[int], norm: str, gated: bool, dropout: float = 0.0):
        """`channels` of the pyramid, full resolution first; the decoder's maps have the same.

        `dropout` is that of the coarsest block, where it costs least (Kendall et al. 2017).
        """
        super().__init__()
        self.blocks = nn.ModuleList(
            UpBlock(below, here, norm, gated, dropout if level == len(channels) - 2 else 0.0)
            for level, (here, below) in enumerate(zip(channels, channels[1:], strict=False))
        )

    def forward(self, pyramid: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Decoder maps and gates.

        Args:
            pyramid: [B, C_i, ceil(D / 2^i), …] for i = 0 to n.

        Returns:
            Maps of the levels 0 to n - 1, shaped as those of the pyramid; and gates of the same
            levels, [B, 1, …], none if the decoder has none.
        """
        x = pyramid[-1]
        maps: list[Tensor] = []
        gates: list[Tensor] = []
        for level in reversed(range(len(self.blocks))):
            x, gate = self.blocks[level](x, pyramid[level])
            maps.insert(0, x)
            if gate is not None:
                gates.insert(0, gate)
        return maps, gates
