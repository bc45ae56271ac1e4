"""The `magpie_*` encoders: the architecture of the MAGPIE paper on two convolutional backbones.

Notable: the paper gives parts and parameter counts but not how the parts join. Here the backbone
makes a pyramid, MS-DA mixes its coarse levels, and a transformer of MS-DA and sparse mixtures of
experts works on the coarsest, whose positions are the tokens. `MagpieConfig` has a switch for
every row of the paper's ablations (Tables 2, 3 and 5).

Every second feed-forward layer is dense and as wide as the experts that a token meets. With a
mixture in all of them, parameters grow by one size with each expert and with each choice, but the
paper's grow by 7.3 M an expert (120 M with 8, 178 M with 16) and by 15.5 M a choice (47, 62, 78 M).
With dense layers that follow `top_k` all five counts hold within 5 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.deformable_transformer import (
    DeformableAttentionLayer,
    FeedForwardLayer,
)
from gliomoe.models.blocks.dlka import MODES
from gliomoe.models.blocks.stages import BACKBONES, block, down
from gliomoe.models.encoders.dense import DenseEncoder, Padded
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.heads.magpie import MagpieDecoder
from gliomoe.models.heads.standard import standard_heads
from gliomoe.models.model import Model
from gliomoe.models.moe.layer import MixtureOfExperts, sparse_feed_forward
from gliomoe.models.recompute import Recomputable
from gliomoe.models.selection import FOUR, select_sequences
from gliomoe.models.settings import changed
from gliomoe.models.stem import DetailStem, known_sequence


@dataclass(frozen=True)
class MagpieConfig:
    """Sizes and parts of one model of the families, its decoder included.

    Tuples over levels start at full resolution.
    """

    backbone: str = "mednext"
    """`mednext` or `unet`."""
    channels: tuple[int, ...] = (16, 32, 64, 208, 512)
    """Channels of each level."""
    blocks: tuple[int, ...] = (3, 4, 8, 8, 8)
    """Blocks of each level of the encoder."""
    expansion: tuple[int, ...] = (2, 2, 3, 4, 4)
    """Expansion in the blocks of each level of both sides; MedNeXt alone."""
    decoder_blocks: tuple[int, ...] = (3, 4, 8, 8)
    """Blocks of each level of the decoder."""
    kernel: int = 3
    """Edge of the depth-wise kernels; MedNeXt alone."""
    patch_size: int = 16
    """Voxels a side of a token, a power of two; levels beyond it are left out."""
    fusion: str = "scalar"
    """Weights of the sequences of a study: `scalar` (eq. 1-2), or another of `fusion.FUSIONS`."""
    channel_agnostic: bool = True
    """Off: the four sequences of BraTS as stacked channels (Table 5, fixed-channel)."""
    msda: bool = True
    """Multi-scale deformable attention in the encoder (eq. 6)."""
    scales: int = 3
    """Levels that MS-DA mixes, from the coarsest up."""
    msda_width: int = 256
    """Channels of all heads of MS-DA together."""
    heads: int = 8
    """Heads of MS-DA."""
    points: int = 4
    """N of eq. 6: points that a head samples on each scale."""
    depth: int = 7
    """Transformer blocks at the coarsest level; the first, third, … hold a mixture."""
    experts: int = 8
    """Experts per mixture (E of eq. 3); 1: dense of the same active width; 0: no feed-forward."""
    top_k: int = 2
    """Experts that a token goes to."""
    expert_hidden: int = 1440
    """Hidden channels of an expert; dense feed-forward layers have `top_k` times as many."""
    renormalise: bool = False
    """Divide the gates of a token by their sum."""
    router_bias: bool = False
    """Balance the experts by biases that the training loop moves, in place of the loss."""
    dlka: str = "warp"
    """Mode of D-LKA in the decoder (eq. 5): `warp`, `deformable` or `off`."""

    def __post_init__(self) -> None:
        """Settings that exclude each other."""
        levels = self.patch_size.bit_length()
        if self.patch_size != 2 ** (levels - 1) or not 2 <= levels <= len(self.channels):
            raise ModelError(
                f"patch_size {self.patch_size}: must be a power of two from 2 to "
                f"{2 ** (len(self.channels) - 1)}, one of channels per halving"
            )
        for name, needed in (
            ("blocks", levels),
            ("expansion", levels),
            ("decoder_blocks", levels - 1),
        ):
            if len(getattr(self, name)) < needed:
                raise ModelError(f"{name}: patch_size {self.patch_size} needs {needed} numbers")
        if self.backbone not in BACKBONES:
            raise ModelError(f"unknown backbone {self.backbone!r}; known: {', '.join(BACKBONES)}")
        if self.dlka not in (*MODES, "off"):
            raise ModelError(f"unknown dlka {self.dlka!r}; known: {', '.join(MODES)}, off")
        if self.kernel % 2 == 0:
            raise ModelError(f"kernel {self.kernel}: must be odd")
        if self.msda and not 1 <= self.scales <= levels:
            raise ModelError(f"scales {self.scales}: must be between 1 and the levels ({levels})")
        if self.msda_width % self.heads:
            raise ModelError(f"msda_width {self.msda_width}: must be a multiple of heads")
        if self.top_k < 1 or self.top_k > self.experts > 1:
            raise ModelError(f"top_k {self.top_k}: must be between 1 and experts ({self.experts})")

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of the levels in use."""
        return tuple(self.channels[: self.patch_size.bit_length()])


class Stem(Recomputable):
    """Voxels of all volumes → one map a study (eq. 1-2), or the stacked four sequences."""

    def __init__(self, config: MagpieConfig):
        super().__init__()
        self.channel_agnostic = config.channel_agnostic
        width = config.channels[0]
        self.embed = (
            DetailStem(width, config.fusion)
            if self.channel_agnostic
            else nn.Conv3d(len(FOUR), width, 1)
        )

    def forward(self, batch: Padded) -> Tensor:
        """[B, C, D, H, W]."""
        if self.channel_agnostic:
            sequence = known_sequence(batch.sequence)
            return self.embed(batch.voxels, sequence, batch.study, len(batch.spacing)).contiguous()
        return self.embed(select_sequences(batch, FOUR, "magpie with channel_agnostic off"))


class Magpie(DenseEncoder):
    """Backbone, MS-DA over its coarse levels, and a sparse transformer on the coarsest."""

    stem_names = ("stem",)
    trunk_names = (("stages",), ("mixing",), ("attention", "feed_forward"))

    def __init__(self, config: MagpieConfig):
        super().__init__()
        self.config = config
        self.patch_size = self.stride = config.patch_size
        self.channels, self.width = config.levels, config.levels[-1]
        self.sequences = () if config.channel_agnostic else FOUR
        self.stem = Stem(config)
        self.stages = nn.ModuleList(_stage(config, level) for level in range(len(self.channels)))
        last = len(self.channels) - 1
        self.first_scale = len(self.channels) - config.scales
        finer = range(self.first_scale, last) if config.msda else ()
        self.mixing = nn.ModuleDict({str(level): _attention(config, level) for level in finer})
        self.attention = nn.ModuleList(
            _attention(config, last) for _ in range(config.depth if config.msda else 0)
        )
        self.feed_forward = nn.ModuleList(
            FeedForwardLayer(self.width, _feed_forward(config, sparse=index % 2 == 0))
            for index in range(config.depth if config.experts else 0)
        )

    def maps(self, batch: Padded, kept: Tensor) -> tuple[list[Tensor], list[Routing]]:
        """As `DenseEncoder.maps`; positions that are not kept are 0 at the coarsest level."""
        levels: list[Tensor] = []
        for stage in self.stages:
            levels.append(stage(levels[-1] if levels else self.stem(batch)))
        for level, mixing in self.mixing.items():
            levels[int(level)] = mixing(levels[int(level)], levels[self.first_scale :])
        shown = kept.unsqueeze(1)
        levels[-1] = levels[-1] * shown
        study, *position = kept.nonzero().unbind(1)
        routing: list[Routing] = []
        for index in range(self.config.depth):
            if self.attention:
                levels[-1] = self.attention[index](levels[-1], levels[self.first_scale :]) * shown
            if self.feed_forward:
                levels[-1], decision = self.feed_forward[index](levels[-1], kept)
                if decision is not None:
                    routing.append(
                        Routing(
                            layer=f"feed_forward.{index}",
                            probabilities=decision.probabilities,
                            choice=decision.choice,
                            logits=decision.logits,
                            study=study,
                            position=torch.stack(position, dim=1),
                            patch_size=self.patch_size,
                        )
                    )
        return levels, routing


def _stage(config: MagpieConfig, level: int) -> nn.Sequential:
    """The blocks of one level, behind the one that reaches its resolution."""
    expansion = config.expansion[level]
    here, parts = config.channels[level], []
    if level:
        above = config.channels[level - 1]
        parts.append(down(config.backbone, above, here, expansion, config.kernel))
    parts += [
        block(config.backbone, here, expansion, config.kernel) for _ in range(config.blocks[level])
    ]
    return nn.Sequential(*parts)


def _attention(config: MagpieConfig, level: int) -> DeformableAttentionLayer:
    """MS-DA whose queries are the voxels of one level."""
    return DeformableAttentionLayer(
        config.levels[level],
        config.levels[-config.scales :],
        config.msda_width,
        config.heads,
        config.points,
    )


def _feed_forward(config: MagpieConfig, sparse: bool) -> FeedForward | MixtureOfExperts:
    """A mixture, or a dense layer that is as wide as the experts that a token meets."""
    width, hidden = config.levels[-1], config.expert_hidden
    experts = config.experts if sparse else 1
    return sparse_feed_forward(
        width, hidden, experts, config.top_k, config.renormalise, config.router_bias
    )


# L has the numbers of blocks of MedNeXt-L; channels and expansions are smaller, which brings it to
# 283 GFLOPs at 128³ and 251 without feed-forward layers, a multiply-add counted as two (Table 6:
# 275 and 245).
MEDNEXT_L = MagpieConfig()
# M and S have the numbers of blocks of MedNeXt-M and -S, and are narrower in their coarse levels.
MEDNEXT_M = MagpieConfig(
    channels=(16, 32, 64, 160, 384), blocks=(3, 4, 4, 4, 4), expansion=(2, 2, 3, 3, 3),
    decoder_blocks=(3, 4, 4, 4), msda_width=192, heads=6, depth=5, expert_hidden=768,
)  # fmt: skip
MEDNEXT_S = MagpieConfig(
    channels=(16, 32, 64, 128, 256), blocks=(2, 2, 2, 2, 2), expansion=(2, 2, 2, 2, 2),
    decoder_blocks=(2, 2, 2, 2), msda_width=128, heads=4, depth=3, expert_hidden=512,
)  # fmt: skip
UNET_B = MagpieConfig(
    backbone="unet", channels=(16, 32, 64, 128, 256), blocks=(1, 2, 2, 2, 1),
    decoder_blocks=(1, 1, 1, 1), msda_width=128, heads=4, depth=3, expert_hidden=704,
)  # fmt: skip
UNET_XL = MagpieConfig(
    backbone="unet", channels=(24, 48, 96, 192, 448), blocks=(1, 2, 2, 2, 2),
    decoder_blocks=(1, 1, 1, 1), msda_width=192, heads=6, depth=5, expert_hidden=1216,
)  # fmt: skip


def build(preset: MagpieConfig, tasks: Sequence[str], **settings: Any) -> Model:
    """A model of a preset with some settings changed; `ModelError` if one is unknown."""
    config = changed(f"magpie_{preset.backbone}", preset, settings)
    encoder = Magpie(config)
    decoder = None
    if "seg" in tasks:
        decoder = MagpieDecoder(
            config.backbone,
            config.levels,
            config.decoder_blocks,
            config.expansion,
            config.kernel,
            config.dlka,
        )
    return Model(encoder, standard_heads(encoder, tasks, decoder), tasks)
