"""MGMT-Net: four subregions of glioma and the markers IDH, 1p/19q and TERT in one network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gliomoe.models.blocks.decoder import Decoder
from gliomoe.models.blocks.mask_pooling import MaskPooling, resample_mask
from gliomoe.models.blocks.squeeze_excitation import squeeze_excitation
from gliomoe.models.encoders.hybrid import HybridEncoder, MGMTNetConfig
from gliomoe.models.features import Predictions
from gliomoe.models.heads.markers import MARKERS
from gliomoe.models.heads.regions import region_logits
from gliomoe.models.model import Model
from gliomoe.models.settings import changed
from gliomoe.models.tissue import Batch

CLASSES = 5
"""Background, NETC, SNFH, ET, RC: the canonical labels 0 to 4 in their order."""

MARKER_TASKS = ("idh", "1p19q", "tert")

PRESET = MGMTNetConfig()


@dataclass(frozen=True)
class Segmentation:
    """What the decoder makes of a pyramid."""

    classes: Tensor
    """[B, 5, D, H, W] logits."""
    deep: tuple[Tensor, ...]
    """[B, 5, D/2^i, …] logits of the coarser decoder levels, finest first; empty in evaluation."""
    gates: list[Tensor]
    """[B, 1, …] for each level from 0, if the skip connections are gated."""


class SegmentationDecoder(nn.Module):
    """Decoder with squeeze-and-excitation before the last layer (MGMT-Net, §3.3).

    The paper's last layer has four channels, one a subregion, and takes the argmax of their
    softmax. Among four tumour classes it could never answer "no tumour", and its cross-entropy
    would have no class for most voxels: the background is the fifth channel here.
    """

    def __init__(self, config: MGMTNetConfig):
        super().__init__()
        full, *coarser = config.channels[:-1]
        self.decoder = Decoder(config.channels, config.norm, config.attention_gates)
        self.recalibrate = squeeze_excitation(full, config.se_reduction)
        self.logits = nn.Conv3d(full, CLASSES, 1)
        self.deep = nn.ModuleList(nn.Conv3d(channels, CLASSES, 1) for channels in coarser)
        for layer in (self.logits, *self.deep):
            # Tumour is rare: start near its frequency.
            nn.init.zeros_(layer.get_parameter("bias"))
            nn.init.constant_(layer.get_parameter("bias")[:1], 3.0)

    def forward(self, pyramid: list[Tensor]) -> Segmentation:
        """Class logits at full resolution and, in training, at the coarser ones.

        Args:
            pyramid: [B, C_i, ceil(D / 2^i), …] for i = 0 to 3.
        """
        maps, gates = self.decoder(pyramid)
        deep: tuple[Tensor, ...] = ()
        if self.training:
            deep = tuple(layer(x) for layer, x in zip(self.deep, maps[1:], strict=True))
        return Segmentation(self.logits(self.recalibrate(maps[0])), deep, gates)


class MarkerHeads(nn.Module):
    """One attention-pooled vector per study, and a small perceptron per marker (MGMT-Net, §3.4)."""

    def __init__(self, tasks: Sequence[str], config: MGMTNetConfig):
        super().__init__()
        width, hidden = config.channels[-1], config.marker_hidden
        self.pooling = MaskPooling(width, config.pooling_hidden)
        self.classify = nn.ModuleDict(
            {
                task: nn.Sequential(
                    nn.Dropout(config.marker_dropout),
                    nn.Linear(width, hidden),
                    nn.ReLU(inplace=True),
                    nn.Linear(hidden, MARKERS[task]),
                )
                for task in tasks
            }
        )

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """Task → logits [B, 1], and the attention [B, 1, d, h, w].

        Args:
            features: [B, C, d, h, w].
            mask: [B, 1, d, h, w], probability of tumour, or None.
        """
        vector, attention = self.pooling(features, mask)
        return {task: head(vector) for task, head in self.classify.items()}, attention


class MGMTNet(Model):
    """MGMT-Net (§3): the predicted tumour gates the features that the markers are read from.

    The mask is the probability of any tumour class. §3.2 lists ET, NETC and RC only, but §5.4
    finds 1p/19q in the infiltrative margin, which is SNFH. It is detached: a few marker labels
    would otherwise bend the segmentation, an "inter-task interference" that the paper wants its
    decoders to prevent; both tasks shape the encoder all the same. Built without `seg`, the
    markers use plain attention pooling, as §3 says once ("no segmentation masks are explicitly
    used").

    In evaluation `maps` has `cmaf` [B, 4, D, H, W], the weights of T1, T1ce, T2, FLAIR at each
    voxel; `markers` [B, 1, D/8, …], the attention of the markers over its maximum; and `gate_i`
    [B, 1, D/2^i, …] if skip connections are gated.
    """

    def forward(self, batch: Batch) -> Predictions:
        """Predictions for all tasks of the model; `ModelError` if a study lacks a sequence."""
        features = self.encoder(batch)
        shown = dict(features.maps)
        classes: Tensor | None = None
        mask: Tensor | None = None
        deep: tuple[Tensor, ...] = ()
        if "seg" in self.heads:
            segmentation = self.heads["seg"](features.pyramid)
            classes = segmentation.classes
            deep = tuple(region_logits(logits) for logits in segmentation.deep)
            tumour = 1 - classes.detach().float().softmax(1)[:, :1]
            mask = resample_mask(tumour, self.encoder.stride)
            shown |= {f"gate_{level}": gate for level, gate in enumerate(segmentation.gates)}
        markers: dict[str, Tensor] = {}
        if "markers" in self.heads:
            markers, attention = self.heads["markers"](features.pyramid[-1], mask)
            shown["markers"] = attention / attention.amax((2, 3, 4), keepdim=True)
        return Predictions(
            seg=None if classes is None else region_logits(classes),
            markers=markers,
            features=features,
            classes=classes,
            deep=deep,
            maps={} if self.training else shown,
        )


def build(preset: MGMTNetConfig, tasks: Sequence[str], **settings: Any) -> Model:
    """MGMT-Net with some settings changed; `ModelError` if one is unknown."""
    encoder = HybridEncoder(changed("mgmt_net", preset, settings))
    heads: dict[str, nn.Module] = {}
    if "seg" in tasks:
        heads["seg"] = SegmentationDecoder(encoder.config)
    if markers := [task for task in tasks if task in MARKER_TASKS]:
        heads["markers"] = MarkerHeads(markers, encoder.config)
    return MGMTNet(encoder, heads, tasks)
