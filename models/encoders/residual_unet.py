"""Encoder of the joint multiscale attention-guided 3D CNN: residual stages at five resolutions.

The paper gives no sizes and calls its network compact: with these widths the whole model has about
six million parameters.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import check_norm
from gliomoe.models.blocks.residual import ResidualBlock, conv_norm_relu
from gliomoe.models.encoders.dense import DenseEncoder, Padded
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.recompute import Recomputable
from gliomoe.models.selection import FOUR, select_sequences


@dataclass(frozen=True)
class AttentionUNetConfig:
    """Settings of the attention U-Net; the paper is silent on all of them."""

    channels: tuple[int, ...] = (16, 32, 64, 128, 192)
    """Of encoder and decoder at 1, 1/2, 1/4, …; fewer levels suit coarse grids."""
    norm: str = "batch"
    """Of convolutions: `batch` or `group`."""
    dropout: float = 0.1
    """Of whole channels, in the two coarsest levels of the encoder and the coarsest of the decoder:
    dropout near full resolution costs more than it tells (Kendall et al. 2017)."""
    grade_hidden: int = 64
    """Hidden layer of the grade head."""
    grade_dropout: float = 0.3
    """Before either layer of the grade head."""

    def __post_init__(self) -> None:
        """Settings that exclude each other."""
        check_norm(self.norm)
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ModelError(f"channels {self.channels}: give at least two levels of at least 1")


class Stage(Recomputable):
    """A 3³ convolution, strided below full resolution, and a residual block."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: str, dropout: float):
        super().__init__()
        self.enter = conv_norm_relu(channels_in, channels_out, norm, stride)
        self.block = ResidualBlock(channels_out, norm)
        self.dropout = nn.Dropout3d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, D, H, W] → [B, C_out, ceil(D/stride), …]."""
        return self.dropout(self.block(self.enter(x)))


class ResidualUNetEncoder(DenseEncoder):
    """Shared volumetric encoder of segmentation and grading; see the module's docstring.

    The four sequences are its input channels. Tokens are the coarsest level, which therefore every
    parameter serves in pretraining as well.
    """

    sequences = FOUR
    trunk_names = (("stages",),)

    def __init__(self, config: AttentionUNetConfig):
        super().__init__()
        self.config = config
        self.channels = tuple(config.channels)
        self.patch_size = self.stride = 2 ** (len(self.channels) - 1)
        self.width = self.channels[-1]
        above = (len(FOUR), *self.channels)
        self.stages = nn.ModuleList(
            Stage(
                above[level],
                here,
                stride=2 if level else 1,
                norm=config.norm,
                dropout=config.dropout if level >= len(self.channels) - 2 else 0.0,
            )
            for level, here in enumerate(self.channels)
        )

    def maps(self, batch: Padded, kept: Tensor) -> tuple[list[Tensor], list[Routing]]:
        """All levels; nothing is routed."""
        x = select_sequences(batch, FOUR, "attention_unet")
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels, []
