"""Joint multiscale attention-guided 3D CNN: segmentation and glioma grade in one network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.decoder import Decoder
from gliomoe.models.blocks.mask_pooling import masked_mean, resample_mask
from gliomoe.models.encoders.residual_unet import AttentionUNetConfig, ResidualUNetEncoder
from gliomoe.models.features import Predictions
from gliomoe.models.heads.markers import MARKERS
from gliomoe.models.heads.regions import region_layer
from gliomoe.models.model import Model
from gliomoe.models.settings import changed
from gliomoe.models.tissue import Batch

PRESET = AttentionUNetConfig()
GRADE_TASKS = ("grade", "hgg")


class AttentionDecoder(nn.Module):
    """Decoder with attention-gated skip connections (attention_unet, §II)."""

    def __init__(self, config: AttentionUNetConfig):
        super().__init__()
        self.decoder = Decoder(config.channels, config.norm, gated=True, dropout=config.dropout)
        self.logits = region_layer(config.channels[0])

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Region logits, and the decoder's maps and gates.

        Args:
            pyramid: [B, C_i, ceil(D / 2^i), …] for i = 0 to n.

        Returns:
            [B, 3, D, H, W]; and for the levels 0 to n - 1 [B, C_i, …] and [B, 1, …].
        """
        maps, gates = self.decoder(pyramid)
        return self.logits(maps[0]), maps, gates


class GradeHead(nn.Module):
    """Grade from global encoder features and tumour-focused decoder features (§II).

    Global: the mean of the coarsest encoder level. Tumour-focused: the mean of every decoder level
    weighted by the predicted whole tumour, so that core, oedema and margin count at each scale.
    """

    def __init__(self, config: AttentionUNetConfig, segments: bool, logits: int):
        """`segments`: there is a decoder; without one, only the encoder is looked at."""
        super().__init__()
        described = sum(config.channels) if segments else config.channels[-1]
        self.classify = nn.Sequential(
            nn.LayerNorm(described),
            nn.Dropout(config.grade_dropout),
            nn.Linear(described, config.grade_hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.grade_dropout),
            nn.Linear(config.grade_hidden, logits),
        )

    def forward(self, coarsest: Tensor, decoded: list[Tensor], tumour: Tensor | None) -> Tensor:
        """Logits [B, 3] of WHO 2, 3, 4, or [B, 1] of HGG.

        Args:
            coarsest: [B, C, d, h, w].
            decoded: [B, C_i, ceil(D / 2^i), …] for i = 0, 1, …; none without segmentation.
            tumour: [B, 1, D, H, W], probability of the whole tumour, or None.
        """
        description = [coarsest.float().mean((2, 3, 4))]
        if tumour is not None:
            for level, x in enumerate(decoded):
                description.append(masked_mean(x, resample_mask(tumour, 2**level)))
        return self.classify(torch.cat(description, dim=1))


class AttentionUNet(Model):
    """Joint multiscale attention-guided 3D CNN (003_0ef44555efc35fbc, §II).

    The paper grades LGG against HGG, the task `hgg`; `grade` is WHO 2, 3 or 4. It does not say
    which labels it segments: the overlapping regions of BraTS are. The mask that focuses the grade
    is detached, so that few grades do not bend the segmentation; the decoder's features that it
    weighs carry gradients from both tasks, as a "segmentation-aware" head asks. Built without
    `seg`, the grade comes of the encoder alone.

    Dropout throughout makes `uncertainty.mc_dropout` work. For Grad-CAM take the gradient of a
    grade logit by `features.pyramid[-1]`, or a finer level. In evaluation `maps` has `gate_i`
    [B, 1, D/2^i, …], the gates of the skip connections.
    """

    def forward(self, batch: Batch) -> Predictions:
        """Predictions for all tasks of the model; `ModelError` if a study lacks a sequence."""
        features = self.encoder(batch)
        seg: Tensor | None = None
        tumour: Tensor | None = None
        decoded: list[Tensor] = []
        gates: list[Tensor] = []
        if "seg" in self.heads:
            seg, decoded, gates = self.heads["seg"](features.pyramid)
            tumour = seg.detach().float().sigmoid()[:, 2:]
        markers: dict[str, Tensor] = {}
        for task in GRADE_TASKS:
            if task in self.heads:
                markers[task] = self.heads[task](features.pyramid[-1], decoded, tumour)
        shown = {} if self.training else {f"gate_{i}": gate for i, gate in enumerate(gates)}
        return Predictions(seg=seg, markers=markers, features=features, maps=shown)


def build(preset: AttentionUNetConfig, tasks: Sequence[str], **settings: Any) -> Model:
    """The attention U-Net with some settings changed; `ModelError` if one is unknown."""
    encoder = ResidualUNetEncoder(changed("attention_unet", preset, settings))
    heads: dict[str, nn.Module] = {}
    if "seg" in tasks:
        heads["seg"] = AttentionDecoder(encoder.config)
    for task in GRADE_TASKS:
        if task in tasks:
            heads[task] = GradeHead(encoder.config, "seg" in tasks, MARKERS[task])
    return AttentionUNet(encoder, heads, tasks)
