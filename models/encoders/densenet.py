"""DenseNet in three dimensions, the MRI branch of MDL-CA, with the maps that it passes through."""

from dataclasses import dataclass

from torch import Tensor, nn

from gliomoe.models.blocks.intensity import centred
from gliomoe.models.blocks.normalisation import allow_few_values
from gliomoe.models.encoders.dense import DenseEncoder, Padded
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.recompute import Recomputable
from gliomoe.models.selection import select_sequences
from gliomoe.models.stem import SEQUENCES

STRIDE = 32
"""Stem, pooling and three transitions halve the resolution."""


@dataclass(frozen=True)
class MDLCAConfig:
    """Settings of MDL-CA, its heads included; defaults are the paper's."""

    sequences: tuple[str, ...] = ("t1ce",)
    """Input channels; where a study has several sequences, the paper takes T1 with contrast."""
    layers: tuple[int, int, int, int] = (6, 12, 24, 16)
    """Of the four dense blocks."""
    growth: int = 32
    """Channels that a layer of a dense block adds."""
    stem_channels: int = 64
    """At half resolution; twice the growth, as usual for DenseNet."""
    width: int = 256
    """Channels of the MRI features, of the genomic embedding and of their fusion."""
    block_dropout: float = 0.2
    """After each dense block."""
    node_width: int = 32
    """Channels of a gene before the graph; not given in the paper."""
    graph_heads: int = 8
    """Attention heads of the first layer over the genes; the second has one."""
    graph_dropout: float = 0.3
    """Of attention coefficients and of the genes between the layers."""
    attention_hidden: int = 64
    """Hidden channels of both cross-modal attentions; not given in the paper."""
    dense: tuple[int, int] = (512, 128)
    """Hidden layers of the head."""
    dropout: float = 0.3
    """After the first of them."""
    head_norm: str = "layer"
    """Normalisation of them: `layer`, or `batch` as in the paper, which needs larger batches."""
    genomics: bool = True
    """Without: MRI alone, the paper's ablation "No GAT"."""
    cross_attention: bool = True
    """Without: both vectors side by side, the paper's ablation "No attention fusion"."""

    def __post_init__(self) -> None:
        """Settings that exclude each other."""
        if len(self.layers) != 4 or min(self.layers) < 1:
            raise ModelError(
                f"layers {self.layers}: must name four dense blocks, each of 1 or more"
            )
        if self.head_norm not in ("layer", "batch"):
            raise ModelError(f"unknown head_norm {self.head_norm!r}; known: layer, batch")
        if not self.sequences:
            raise ModelError("sequences (): name at least one")
        for name in self.sequences:
            if name not in SEQUENCES:
                raise ModelError(f"unknown sequence {name!r}; known: {', '.join(SEQUENCES)}")
        if self.width % self.graph_heads:
            raise ModelError(
                f"width {self.width}: must be a multiple of graph_heads ({self.graph_heads})"
            )


class Stage(Recomputable, nn.Sequential):
    """Parts of the network from one level of the pyramid to the next."""


class DenseNetEncoder(DenseEncoder):
    """Stem, four dense blocks, and a projection to the features (MDL-CA, eq. 5).

    Layers are MONAI's `DenseNet`. Level 0 of the pyramid is the input, the last the projected
    features, 256 × 7 × 7 × 7 of a volume of 224³; tokens are those.
    """

    stem_names, trunk_names = ("stem",), (("blocks",),)

    def __init__(self, config: MDLCAConfig):
        # MONAI is slow to import, and importing the models must not do it.
        from monai.networks.nets import DenseNet

        super().__init__()
        self.config = config
        self.sequences = config.sequences
        self.stride = self.patch_size = STRIDE
        self.width = config.width
        network = DenseNet(
            spatial_dims=3,
            in_channels=len(config.sequences),
            out_channels=1,  # of its own head, which is not used
            init_features=config.stem_channels,
            growth_rate=config.growth,
            block_config=config.layers,
        )
        allow_few_values(network)
        parts = dict(network.features.named_children())
        self.stem = Stage(parts["conv0"], parts["norm0"], parts["relu0"])
        halve = [parts["pool0"], *(parts[f"transition{n}"] for n in (1, 2, 3))]
        self.blocks = nn.ModuleList(
            Stage(before, parts[f"denseblock{n}"], nn.Dropout(config.block_dropout))
            for n, before in enumerate(halve, start=1)
        )
        channels, levels = config.stem_channels, []
        for layers in config.layers:
            levels.append(channels + layers * config.growth)
            channels = levels[-1] // 2
        self.project = nn.Sequential(
            parts["norm5"], nn.ReLU(), nn.Conv3d(levels[-1], config.width, 1)
        )
        nn.init.kaiming_normal_(self.get_parameter("project.2.weight"))
        inputs = len(config.sequences)
        self.channels = (inputs, config.stem_channels, *levels[:-1], config.width)

    def maps(self, batch: Padded, kept: Tensor) -> tuple[list[Tensor], list[Routing]]:
        """The channels of the input, then those of stem and blocks; nothing is routed."""
        levels = [centred(select_sequences(batch, self.sequences, "mdl_ca"))]
        levels.append(self.stem(levels[0]))
        for block in self.blocks:
            levels.append(block(levels[-1]))
        levels[-1] = self.project(levels[-1])
        return levels, []
