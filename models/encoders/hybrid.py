"""Encoder of MGMT-Net (§3.1 and §3.2): CMAF, then a convolutional beside a Swin transformer branch.

Notable: three convolutional stages halve the resolution three times, to 1/8. Swin stages behind
patches of 2³ (whole volumes of 128³ would not fit the paper's GPUs with finer ones) are at 1/2,
1/4, 1/8 and 1/16. Both meet where the resolution is shared, at 1/2 to 1/8; the fourth Swin stage
is enlarged to 1/8 and joins there, so that the last map holds all that either branch knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.attention_gate import enlarge
from gliomoe.models.blocks.cmaf import CMAF
from gliomoe.models.blocks.normalisation import check_norm
from gliomoe.models.blocks.residual import ResidualBlock, conv_norm_relu
from gliomoe.models.blocks.swin import SwinStage
from gliomoe.models.encoders.dense import DenseEncoder, Padded
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.recompute import Recomputable
from gliomoe.models.selection import FOUR, select_sequences

STAGES = 3
"""Convolutional stages, each at half the resolution of the one before."""


@dataclass(frozen=True)
class MGMTNetConfig:
    """Settings of MGMT-Net.

    The paper gives dropout rates, norm and the numbers of stages and residual blocks; widths, heads
    and window are missing in its text, and here those usual for the parts.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Of the pyramid at 1, 1/2, 1/4, 1/8: C' of CMAF, then the convolutional stages."""
    blocks: int = 2
    """Residual blocks in a convolutional stage."""
    swin_width: int = 48
    """Channels of the first Swin stage, doubled by each patch merging."""
    swin_depth: int = 2
    """Layers in a Swin stage: windows and shifted windows in turn."""
    swin_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Attention heads of the four Swin stages."""
    window: int = 7
    """Edge of an attention window in patches."""
    norm: str = "batch"
    """Of convolutions: `batch` as in the paper, or `group`."""
    fusion_dropout: float = 0.2
    """In the attention network of CMAF."""
    attention_gates: bool = False
    """Gates on the skip connections of the decoder, which the paper calls optional."""
    se_reduction: int = 2
    """Of the squeeze-and-excitation at the end of the decoder; Hu et al. take 16, which would leave
    one hidden channel of the few that full resolution has."""
    pooling_hidden: int = 64
    """Hidden channels of the attention that pools for the markers."""
    marker_hidden: int = 64
    """Hidden layer of a marker head."""
    marker_dropout: float = 0.3
    """Before the hidden layer of a marker head."""

    def __post_init__(self) -> None:
        """Settings that exclude each other."""
        check_norm(self.norm)
        if len(self.channels) != STAGES + 1 or min(self.channels) < 2:
            raise ModelError(
                f"channels {self.channels}: give {STAGES + 1}, at least 2 each, for full "
                "resolution, 1/2, 1/4 and 1/8"
            )
        if len(self.swin_heads) != STAGES + 1:
            raise ModelError(f"swin_heads {self.swin_heads}: give {STAGES + 1}, one a Swin stage")
        for stage, heads in enumerate(self.swin_heads):
            if heads < 1 or self.swin_width * 2**stage % heads:
                raise ModelError(
                    f"swin_heads {self.swin_heads}: {self.swin_width * 2**stage} channels of stage "
                    f"{stage + 1} must be a multiple of its heads"
                )
        if not 1 <= self.se_reduction <= self.channels[0]:
            raise ModelError(
                f"se_reduction {self.se_reduction}: must be between 1 and {self.channels[0]}, "
                "the first of channels"
            )


class ConvStage(Recomputable):
    """A strided 3³ convolution and residual blocks.

    The paper names EfficientNet blocks once, and then describes residual blocks of convolutions,
    ReLU and batch normalisation: these are built.
    """

    def __init__(self, channels_in: int, channels_out: int, blocks: int, norm: str):
        super().__init__()
        self.down = conv_norm_relu(channels_in, channels_out, norm, stride=2)
        self.blocks = nn.Sequential(*(ResidualBlock(channels_out, norm) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, D, H, W] → [B, C_out, ceil(D/2), ceil(H/2), ceil(W/2)]."""
        return self.blocks(self.down(x))


class Fuse(nn.Module):
    """Both branches at one resolution: layer norm of the Swin maps, concatenation, 1×1×1 (§3.2)."""

    def __init__(self, local: int, regional: Sequence[int]):
        """Channels of the convolutional map and of each Swin map."""
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in regional)
        self.mix = nn.Conv3d(local + sum(regional), local, 1)

    def forward(self, local: Tensor, regional: Sequence[Tensor]) -> Tensor:
        """The fused map.

        Args:
            local: [B, C, D, H, W].
            regional: [B, C_s, D, H, W], or of half the resolution.

        Returns:
            [B, C, D, H, W].
        """
        parts = [local]
        for norm, x in zip(self.norms, regional, strict=True):
            normalised = norm(x.movedim(1, -1)).movedim(-1, 1)
            coarser = x.shape[2:] != local.shape[2:]
            parts.append(enlarge(normalised, local.shape[2:]) if coarser else normalised)
        return self.mix(torch.cat(parts, dim=1))


class HybridEncoder(DenseEncoder):
    """Encoder of MGMT-Net; see the module's docstring.

    Level 0 of the pyramid is the output of CMAF, the others are what the branches say together.
    Tokens are those of 1/8. `Features.maps` has `cmaf`, the weights of the four sequences.
    """

    dense_only = ("fuse_skips",)
    stem_names, trunk_names = ("cmaf", "patches"), (("cnn", "swin"),)
    sequences = FOUR

    def __init__(self, config: MGMTNetConfig):
        super().__init__()
        self.config = config
        self.channels = tuple(config.channels)
        self.patch_size = self.stride = 2**STAGES
        self.width = config.channels[-1]
        self.cmaf = CMAF(
            len(FOUR), config.channels[0], dropout=config.fusion_dropout, norm=config.norm
        )
        self.cnn = nn.ModuleList(
            ConvStage(above, here, config.blocks, config.norm)
            for above, here in zip(config.channels, config.channels[1:], strict=False)
        )
        widths = [config.swin_width * 2**stage for stage in range(STAGES + 1)]
        self.patches = nn.Conv3d(config.channels[0], widths[0], 2, stride=2)
        self.swin = nn.ModuleList(
            SwinStage(width, config.swin_depth, heads, config.window, merge=stage > 0)
            for stage, (width, heads) in enumerate(zip(widths, config.swin_heads, strict=True))
        )
        *finer, last = config.channels[1:]
        self.fuse_skips = nn.ModuleList(
            Fuse(here, [width]) for here, width in zip(finer, widths, strict=False)
        )
        self.fuse_last = Fuse(last, widths[-2:])

    def maps(self, batch: Padded, kept: Tensor) -> tuple[list[Tensor], list[Routing]]:
        """The four levels; nothing is routed."""
        volumes = select_sequences(batch, FOUR, "mgmt_net")
        fused, weights = self.cmaf(volumes.unsqueeze(2))
        if not self.training:
            batch.shown["cmaf"] = weights
        levels, regional = [fused], []
        x = self.patches(fused)
        for stage in self.swin:
            x = stage(x)
            regional.append(x)
        x = fused
        for index, stage in enumerate(self.cnn):
            x = stage(x)
            if index < len(self.fuse_skips):
                levels.append(self.fuse_skips[index](x, regional[index : index + 1]))
        levels.append(self.fuse_last(x, regional[-2:]))
        return levels, []
