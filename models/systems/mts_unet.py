"""MTS-UNET: SwinUNETR that segments, tells IDH and 1p/19q, and grades (arXiv 2503.06828).

Choices where the paper is silent or two readings are possible:

- 62 M parameters without CMD and 124 M with it: the difference is the size of a whole SwinUNETR.
  So the features that CMD modulates go through a second SwinUNETR, whose map at full resolution,
  gated by the predicted tumour, is pooled to the vector of CMD. No other reading of the text comes
  near the number: the module by itself has a few thousand parameters.
- The gate takes the probability of the whole tumour, detached: a few marker labels shall not bend
  the segmentation. Built without the task `seg` there is none, and pooling weighs all alike.
- Segmentation is a softmax over background, necrotic core, oedema and enhancing tumour. The
  regions that all models answer with are sums of these probabilities.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gliomoe.models.blocks.cmd import CrossModalityDifferential, gated_mean, tumour_gate
from gliomoe.models.blocks.dsf import DualStreamFusion
from gliomoe.models.blocks.tafe import TumourAwareFeatures
from gliomoe.models.encoders.swin_unetr import (
    STRIDE,
    MTSUNetConfig,
    SwinEncoder,
    SwinStages,
)
from gliomoe.models.features import Predictions
from gliomoe.models.heads.markers import MARKERS
from gliomoe.models.heads.regions import region_logits
from gliomoe.models.heads.swin_unetr import SwinUNETRDecoder, SwinUNETRHead
from gliomoe.models.model import Model
from gliomoe.models.selection import FOUR
from gliomoe.models.settings import changed
from gliomoe.models.tissue import Batch, crop_level, pad_to_multiple

TASKS = ("seg", "idh", "1p19q", "grade", "hgg")

WHOLE_TUMOUR = 2
"""Of the regions."""


class MismatchBranch(nn.Module):
    """CMD and the network that its features go through."""

    def __init__(self, config: MTSUNetConfig):
        super().__init__()
        self.min_gate = config.min_gate
        self.differential = CrossModalityDifferential(config.cmd_channels, config.gamma)
        self.stages = SwinStages(2 * config.cmd_channels, config)
        self.decoder = SwinUNETRDecoder(2 * config.cmd_channels, config.feature_size)

    def forward(self, t2: Tensor, flair: Tensor, tumour: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pooled features and the attention to the mismatch.

        Args:
            t2: [B, 1, D, H, W].
            flair: The same shape.
            tumour: Probability of the whole tumour, the same shape; None: no gate.

        Returns:
            [B, feature_size] float32 and [B, 1, D, H, W].
        """
        modulated, attention = self.differential(t2, flair)
        sides = modulated.shape[-3:]
        levels = self.stages(pad_to_multiple(modulated, STRIDE))
        pyramid = [crop_level(level, sides, 2**i) for i, level in enumerate(levels, start=1)]
        features = self.decoder([modulated, *pyramid])
        gate = None if tumour is None else tumour_gate(tumour, self.min_gate)
        return gated_mean(features, gate), attention


class MTSUNet(Model):
    """Encoder, decoder, and heads of tumour-aware features, for IDH joined by those of CMD."""

    def forward(self, batch: Batch) -> Predictions:
        """Predictions for all tasks; `maps` has the attention of CMD as `mismatch`."""
        features = self.encoder(batch)
        pyramid = features.pyramid
        classes = seg = None
        if "seg" in self.heads:
            classes = self.heads["seg"](pyramid)
            seg = region_logits(classes)
        markers, maps = {}, {}
        if "tafe" in self.heads:
            vector = self.heads["tafe"](pyramid)
            linear = self.heads["markers"]
            assert isinstance(linear, nn.ModuleDict)
            markers = {task: head(vector) for task, head in linear.items()}
            if "cmd" in self.heads:
                whole = slice(WHOLE_TUMOUR, WHOLE_TUMOUR + 1)
                tumour = None if seg is None else seg[:, whole].detach().sigmoid()
                t2, flair = (pyramid[0][:, [FOUR.index(name)]] for name in ("t2", "flair"))
                mismatch, attention = self.heads["cmd"](t2, flair, tumour)
                markers["idh"] = self.heads["dsf"](vector, mismatch)
                maps = {} if self.training else {"mismatch": attention}
        return Predictions(
            seg=seg,
            markers={task: markers[task] for task in self.tasks if task in MARKERS},
            features=features,
            classes=classes,
            maps=maps,
        )


def build(preset: MTSUNetConfig, tasks: Sequence[str], **settings: Any) -> Model:
    """A model of a preset with some settings changed; `ModelError` if one is unknown."""
    config = changed("mts_unet", preset, settings)
    encoder = SwinEncoder(config)
    markers = [task for task in tasks if task in MARKERS]
    heads: dict[str, nn.Module] = {}
    if "seg" in tasks:
        heads["seg"] = SwinUNETRHead(encoder.channels[0], config.feature_size)
    if markers:
        width = config.tafe_width
        stages = encoder.channels[-config.tafe_stages :]
        heads["tafe"] = TumourAwareFeatures(stages, width, config.dropout)
    if "idh" in markers and config.cmd:
        markers.remove("idh")
        heads["cmd"] = MismatchBranch(config)
        heads["dsf"] = DualStreamFusion(width, config.feature_size, config.dropout)
    if "tafe" in heads:
        heads["markers"] = nn.ModuleDict(
            {task: nn.Linear(width, MARKERS[task]) for task in markers}
        )
    return MTSUNet(encoder, heads, tasks)
