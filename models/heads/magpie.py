"""The decoder of the `magpie_*` models: blocks of the backbone with D-LKA (MAGPIE, eq. 5)."""

from collections.abc import Sequence

from torch import Tensor, nn

from gliomoe.models.blocks.dlka import DeformableLargeKernelAttention
from gliomoe.models.blocks.stages import block, up
from gliomoe.models.heads.regions import region_layer


class MagpieDecoder(nn.Module):
    """From the coarsest level up: enlarge, add the finer level, D-LKA, convolve.

    Full resolution has no D-LKA: there its kernels would cost more than the rest of the network,
    and 25³ voxels of 2 mm, what they see at half the resolution, are enough to "see far".
    """

    def __init__(
        self,
        backbone: str,
        channels: Sequence[int],
        blocks: Sequence[int],
        expansion: Sequence[int],
        kernel: int,
        dlka: str,
    ) -> None:
        """Weights.

        Args:
            backbone: `mednext` or `unet`.
            channels: Of the pyramid, full resolution first.
            blocks: Of each level but the coarsest, full resolution first.
            expansion: Of each level; MedNeXt alone.
            kernel: Edge of the depth-wise kernels; MedNeXt alone.
            dlka: `warp`, `deformable` or `off`.
        """
        super().__init__()
        self.up = nn.ModuleList(
            up(backbone, channels[level + 1], channels[level], expansion[level], kernel)
            for level in range(len(channels) - 1)
        )
        self.blocks = nn.ModuleList()
        for level, here in enumerate(channels[:-1]):
            large = level > 0 and dlka != "off"
            parts: list[nn.Module] = [DeformableLargeKernelAttention(here, dlka)] if large else []
            parts += [block(backbone, here, expansion[level], kernel) for _ in range(blocks[level])]
            self.blocks.append(nn.Sequential(*parts))
        self.logits = region_layer(channels[0])

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Logits [B, 3, D, H, W] of the overlapping regions.

        Args:
            pyramid: [B, C_i, ceil(D / 2^i), …] for i = 0, 1, …
        """
        x = pyramid[-1]
        for level in reversed(range(len(self.blocks))):
            finer = pyramid[level]
            d, h, w = finer.shape[-3:]
            x = self.blocks[level](self.up[level](x)[..., :d, :h, :w] + finer)
        return self.logits(x)
