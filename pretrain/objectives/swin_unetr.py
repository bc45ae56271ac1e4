"""Objective `swin_unetr`: inpainting, rotation and contrast, as the Swin UNETR was pretrained.

Tang et al. 2022, "Self-supervised pre-training of Swin transformers for 3D medical image analysis",
eq. 1-4, for every encoder: voxels of masked positions under L1, by how many quarter turns a view
was turned about the axial axis, and which two views are of one study. The paper weighs the three
alike. Its code contrasts at a temperature of 0.5, and it cuts out 30 % of the voxels where
`mask.ratio` masks here.

Shapes: B studies, 2B views of them.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.contrast import Contrast
from gliomoe.pretrain.objectives.mae import Reconstruction, fill_all
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.routing import balance
from gliomoe.pretrain.samples.masking import Mask
from gliomoe.pretrain.samples.views import Views

_TURNS = 4


class InpaintRotateContrast(Objective):
    """Encoder, decoder, rotation head, projector, routing."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__(encoder, config)
        self.inpainting = Reconstruction(encoder, config, normalised=False, distance=F.l1_loss)
        self.contrast = Contrast(encoder, config)
        self.rotation = nn.Linear(encoder.width, _TURNS)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss` and its parts."""
        turned = turn(views)
        features = self.encoder(turned.visible, turned.mask.keep)
        error = self.inpainting(features, turned)
        contrast, accuracy = self.contrast(features, turned)
        logits = self.rotation(features.pooled).float()
        turns = torch.tensor(views.turns, device=logits.device)
        rotation = F.cross_entropy(logits, turns)
        routing, shown = balance(features, self.weights)
        weights = self.weights
        return {
            "loss": weights.reconstruction * error
            + weights.rotation * rotation
            + weights.contrast * contrast
            + routing,
            "inpainting": error.detach(),
            "rotation": rotation.detach(),
            "rotation_accuracy": (logits.argmax(1) == turns).float().mean(),
            "contrast": contrast.detach(),
            "contrast_accuracy": accuracy,
            **shown,
        }

    def picture(self, views: Views) -> Tensor:
        """Volumes with every masked position predicted, not turned, [V, 1, D, H, W]."""
        return fill_all(self.encoder, self.inpainting, views)


def turn(views: Views) -> Views:
    """The views, each turned by its `turns`: images, mask and spacing, without resampling."""
    mask = views.mask
    return replace(
        views,
        visible=_turn_batch(views.visible, views.turns),
        complete=_turn_batch(views.complete, views.turns),
        mask=Mask(
            keep=_turn_each(mask.keep, views.turns),
            predict=_turn_each(mask.predict, views.turns),
            masked=_turn_each(mask.masked, views.turns),
        ),
    )


def _turn_batch(batch: StudyBatch, turns: tuple[int, ...]) -> StudyBatch:
    """A batch whose studies are turned; sides D and H change places with their spacing."""
    spacing = [
        row[[1, 0, 2]] if turns % 2 else row
        for row, turns in zip(batch.spacing, turns, strict=True)
    ]
    of_volume = [turns[study] for study in batch.study.tolist()]
    return replace(batch, voxels=_turn_each(batch.voxels, of_volume), spacing=torch.stack(spacing))


def _turn_each(x: Tensor, turns: tuple[int, ...] | list[int]) -> Tensor:
    """Rows [..., D, H, W] of x, each by its quarter turns in the plane of D and H.

    D, H, W run along R, A, S.
    """
    return torch.stack(
        [torch.rot90(row, count, (-3, -2)) for row, count in zip(x, turns, strict=True)]
    )
