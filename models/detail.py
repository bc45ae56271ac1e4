"""Convolutional path over the resolutions above the token grid, for dense prediction."""

from collections.abc import Sequence

from torch import Tensor, nn

from gliomoe.models.convolution import ConvNormAct, ResidualBlock
from gliomoe.models.stem import DetailStem


class DetailPath(nn.Module):
    """Maps at full, 1/2, 1/4, … resolution; few channels, since full resolution is dear."""

    def __init__(self, channels: Sequence[int], fusion: str):
        super().__init__()
        self.stem = DetailStem(channels[0], fusion)
        self.full = ConvNormAct(channels[0], channels[0])
        self.lower = nn.ModuleList(
            nn.Sequential(ConvNormAct(above, here, kernel=2, stride=2), ResidualBlock(here))
            for above, here in zip(channels, channels[1:], strict=False)
        )

    def forward(
        self, voxels: Tensor, sequence: Tensor, study: Tensor, studies: int
    ) -> list[Tensor]:
        """Maps [B, C_i, D/2^i, H/2^i, W/2^i], from full resolution down.

        Args:
            voxels: [V, 1, D, H, W], sides multiples of 2 per level.
            sequence: [V] int64, within the table of sequences.
            study: [V] int64, ascending.
            studies: B.
        """
        maps = [self.full(self.stem(voxels, sequence, study, studies))]
        for level in self.lower:
            maps.append(level(maps[-1]))
        return maps
