"""The `gliomoe_*` encoders: a 3D vision transformer that sees kept tissue tokens only.

Notable: the sequences of a study fuse before the trunk, so four cost what one does. Every second
block has a mixture of experts. With `keep=None` all tissue is encoded and a light convolutional
path adds the resolutions above the token grid; with `keep` that path does not run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gliomoe.models.attention import Attention
from gliomoe.models.detail import DetailPath
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Features, Routing
from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.heads.standard import standard_heads
from gliomoe.models.model import Model
from gliomoe.models.moe.layer import MixtureOfExperts, sparse_feed_forward
from gliomoe.models.moe.router import Decision
from gliomoe.models.position import centres, rotary_angles
from gliomoe.models.recompute import Recomputable
from gliomoe.models.settings import changed
from gliomoe.models.stem import PatchStem, known_sequence
from gliomoe.models.tissue import Batch, crop_level, pad_to_multiple, patches, tissue_positions

MIDDLE = 0.5
"""Middle of the intensities of tissue, which are about 0 to 1: centred input trains faster."""


@dataclass(frozen=True)
class GlioMoEConfig:
    """Sizes of one encoder of the family."""

    width: int = 192
    """Channels of a token."""
    depth: int = 6
    """Blocks."""
    heads: int = 3
    """Attention heads."""
    hidden: int = 512
    """Hidden channels of the dense feed-forward layers."""
    experts: int = 8
    """Experts per mixture; 1 replaces each mixture by a dense layer of the same active size."""
    top_k: int = 2
    """Experts that a token goes to."""
    expert_hidden: int = 192
    """Hidden channels of an expert."""
    renormalise: bool = False
    """Divide the gates of a token by their sum; MAGPIE does not."""
    router_bias: bool = False
    """Balance the experts by a bias that training moves (`moe.balance.update_bias`)."""
    patch_size: int = 8
    """Edge of a patch in voxels, a power of two; 4 suits grids of 3 mm and coarser."""
    stem_hidden: int = 96
    """Channels of a patch before the sequences fuse."""
    registers: int = 4
    """Extra tokens per study that belong to no position."""
    detail_channels: tuple[int, ...] = (8, 16, 32)
    """Channels at full, 1/2, 1/4, … resolution; levels at or below the token grid are unused."""
    fusion: str = "scalar"
    """Weights of the sequences of a study: `scalar` (MAGPIE, eq. 1-2), `content` (place by place,
    after MGMT-Net's CMAF) or `mean`."""

    def __post_init__(self) -> None:
        """Settings that exclude each other."""
        levels = self.patch_size.bit_length() - 1
        if self.patch_size != 2**levels or not 1 <= levels <= len(self.detail_channels):
            raise ModelError(
                f"patch_size {self.patch_size}: must be a power of two from 2 to "
                f"{2 ** len(self.detail_channels)}, one detail level per halving"
            )
        if self.width % self.heads or self.width // self.heads % 2 or self.width < 6 * self.heads:
            raise ModelError(
                f"width {self.width}: must be an even multiple of heads ({self.heads}), at least 6"
            )
        if self.experts > 1 and not 1 <= self.top_k <= self.experts:
            raise ModelError(f"top_k {self.top_k}: must be between 1 and experts ({self.experts})")
        if self.renormalise and self.top_k == 1:
            raise ModelError("renormalise: with top_k 1 every gate is 1 and no router learns")

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of the detail levels that the patch size leaves above the token grid."""
        return tuple(self.detail_channels[: self.patch_size.bit_length() - 1])


@dataclass(frozen=True)
class Pack:
    """Registers and tokens of all studies, one study after the other."""

    x: Tensor
    """[N, C]."""
    lengths: list[int]
    """Tokens of each study, registers included."""
    rows: Tensor
    """Where the tokens are among them, int64."""
    study: Tensor
    """[N] int64."""
    position: Tensor
    """[N, 3] int64, -1 for registers."""


class Block(Recomputable):
    """Attention and feed-forward layer or mixture, each added to its input."""

    def __init__(self, config: GlioMoEConfig, sparse: bool):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward: FeedForward | MixtureOfExperts
        if not sparse:
            self.feed_forward = FeedForward(config.width, config.hidden)
        else:
            self.feed_forward = sparse_feed_forward(
                config.width, config.expert_hidden, config.experts, config.top_k,
                config.renormalise, config.router_bias,
            )  # fmt: skip

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], lengths: list[int]
    ) -> tuple[Tensor, Decision | None]:
        """Tokens [N, C] and the decision of the router, if there is one."""
        x = x + self.attention(self.attention_norm(x), rotary, lengths)
        mixed = self.feed_forward(self.feed_forward_norm(x))
        output, decision = mixed if isinstance(mixed, tuple) else (mixed, None)
        return x + output, decision

    @torch.no_grad()
    def scale_outputs(self, factor: float) -> None:
        """Scale what the block adds to its input, for initialisation."""
        self.attention.out.weight.mul_(factor)
        if isinstance(self.feed_forward, MixtureOfExperts):
            self.feed_forward.experts.down.mul_(factor)
        else:
            self.feed_forward.down.weight.mul_(factor)


class GlioMoE(Encoder):
    """Encoder of the family; see the module's docstring."""

    dense_only = ("detail",)
    stem_names, trunk_names = ("stem", "registers"), (("blocks",),)

    def __init__(self, config: GlioMoEConfig):
        super().__init__()
        self.config = config
        self.patch_size = self.stride = config.patch_size
        self.width = config.width
        self.channels = (*config.levels, config.width)
        self.stem = PatchStem(config.patch_size, config.stem_hidden, config.width, config.fusion)
        self.registers = nn.Parameter(torch.empty(config.registers, config.width))
        blocks = [Block(config, sparse=index % 2 == 1) for index in range(config.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.width)
        self.detail = DetailPath(config.levels, config.fusion)
        self._initialise()
        for block in blocks:
            block.scale_outputs((2 * config.depth) ** -0.5)

    def forward(self, batch: Batch, keep: Tensor | None = None) -> Features:
        """Encode a batch.

        Args:
            batch: Studies of any sides and any number of volumes each.
            keep: [B, Gd, Gh, Gw] bool, the patch positions to encode; None encodes all positions
                with tissue and fills the pyramid. A study may keep none: its `pooled` is 0.

        Returns:
            Features; the pyramid goes from full resolution to the token grid, background 0.
        """
        return self._encode(batch, keep)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def layers(self, batch: Batch, keep: Tensor) -> tuple[Features, list[Tensor]]:
        """As `Encoder.layers`; the tokens of a block are those before the last norm."""
        outputs: list[Tensor] = []
        return self._encode(batch, keep, outputs), outputs

    def _encode(
        self, batch: Batch, keep: Tensor | None, outputs: list[Tensor] | None = None
    ) -> Features:
        """`forward`; `outputs` takes the tokens after each block."""
        studies, sides = len(batch.spacing), batch.voxels.shape[-3:]
        sequence = known_sequence(batch.sequence)
        voxels = pad_to_multiple(batch.voxels, self.stride)
        kept = tissue_positions(batch, self.patch_size) if keep is None else keep
        where = kept.nonzero()
        # All that Python has to know in one piece: a GPU is waited for here, and at `nonzero`.
        numbers = torch.cat([kept.flatten(1).sum(1), batch.study]).cpu()
        counts, owner = numbers[:studies].tolist(), numbers[studies:]

        tokens = self._tokens(voxels, where, counts, sequence, owner)
        pack = self._with_registers(tokens, where, counts)
        rotary = self._rotary(pack, batch.spacing, kept.shape[1:])
        x, routing = self._trunk(pack, rotary, outputs)
        x = self.norm(x).index_select(0, pack.rows)

        pyramid = []
        if keep is None:
            maps = self.detail(voxels - MIDDLE, sequence, owner, studies)
            maps.append(_scatter(x, where, kept.shape))
            pyramid = [crop_level(level, sides, 2**i) for i, level in enumerate(maps)]
        pooled = torch.stack([part.sum(0) / max(len(part), 1) for part in x.split(counts)])
        return Features(pooled, x, where[:, 0], where[:, 1:], pyramid, routing)

    def _tokens(
        self, voxels: Tensor, where: Tensor, counts: list[int], sequence: Tensor, owner: Tensor
    ) -> Tensor:
        """Fused tokens [N, C] of the kept positions, float32 for the residual stream."""
        grid = patches(voxels, self.patch_size)
        places = [place[:, 1:].unbind(1) for place in where.split(counts)]
        rows = [
            grid[v][places[study]].flatten(1) - MIDDLE for v, study in enumerate(owner.tolist())
        ]
        return self.stem(rows, sequence, owner, len(counts)).float()

    def _with_registers(self, tokens: Tensor, where: Tensor, counts: list[int]) -> Pack:
        """The tokens of each study behind its registers."""
        number, parts = len(self.registers), tokens.split(counts)
        x = torch.cat([piece for part in parts for piece in (self.registers, part)])
        rows = torch.arange(len(where), device=where.device) + number * (where[:, 0] + 1)
        studies = torch.arange(len(counts), device=where.device)
        begins = studies.repeat_interleave(number)
        study = torch.cat([begins, where[:, 0]]).sort(stable=True).values
        position = where.new_full((len(x), 3), -1).index_copy(0, rows, where[:, 1:])
        return Pack(x, [number + count for count in counts], rows, study, position)

    def _rotary(self, pack: Pack, spacing: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor]:
        """Rotary angles of the tokens; registers sit at the centre."""
        patch_mm = (spacing * self.patch_size)[pack.study]
        millimetres = centres(pack.position, (grid[0], grid[1], grid[2]), patch_mm)
        millimetres = millimetres.masked_fill(pack.position < 0, 0)
        return rotary_angles(millimetres, self.config.width // self.config.heads)

    def _trunk(
        self, pack: Pack, rotary: tuple[Tensor, Tensor], outputs: list[Tensor] | None
    ) -> tuple[Tensor, list[Routing]]:
        """All blocks in turn."""
        x, routing = pack.x, []
        for index, block in enumerate(self.blocks):
            x, decision = block(x, rotary, pack.lengths)
            if outputs is not None:
                outputs.append(x.index_select(0, pack.rows))
            if decision is not None:
                routing.append(
                    Routing(
                        layer=f"blocks.{index}",
                        probabilities=decision.probabilities,
                        choice=decision.choice,
                        logits=decision.logits,
                        study=pack.study,
                        position=pack.position,
                        patch_size=self.patch_size,
                    )
                )
        return x, routing

    @torch.no_grad()
    def _initialise(self) -> None:
        """Layers that keep the variance, registers near 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.registers, std=0.02)


def _scatter(tokens: Tensor, where: Tensor, shape: torch.Size) -> Tensor:
    """Tokens [N, C] at their places [N, 4] of a grid [B, C, Gd, Gh, Gw]; other positions 0."""
    grid = tokens.new_zeros(*shape, tokens.shape[1])
    return grid.index_put(where.unbind(1), tokens).permute(0, 4, 1, 2, 3)


TINY = GlioMoEConfig()
SMALL = GlioMoEConfig(
    width=384, depth=12, heads=6, hidden=1024, expert_hidden=256, stem_hidden=128,
    detail_channels=(16, 32, 64),
)  # fmt: skip
BASE = GlioMoEConfig(
    width=768, depth=12, heads=12, hidden=2048, expert_hidden=512, stem_hidden=256,
    detail_channels=(24, 48, 96),
)  # fmt: skip
LARGE = GlioMoEConfig(
    width=960, depth=20, heads=15, hidden=2560, expert_hidden=640, stem_hidden=320,
    detail_channels=(32, 64, 128),
)  # fmt: skip


def build(preset: GlioMoEConfig, tasks: Sequence[str], **settings: Any) -> Model:
    """A model of a preset with some settings changed; `ModelError` if one is unknown."""
    encoder = GlioMoE(changed("gliomoe", preset, settings))
    return Model(encoder, standard_heads(encoder, tasks), tasks)
