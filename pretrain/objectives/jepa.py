"""Objective `jepa`: tokens of a teacher at masked positions, predicted from what is visible.

I-JEPA (Assran et al. 2023, "Self-supervised learning from images with a joint-embedding predictive
architecture") with the mask of the other objectives in place of its blocks. As in V-JEPA (Bardes et
al. 2024) the teacher sees all of a study, and targets are normalised token by token. The teacher is
a running mean of the encoder whose decay rises linearly to 1 (I-JEPA, appendix A.1).

Notable: the teacher encodes every position with tissue, four times as many as the encoder at a
ratio of 0.75, though without gradient. It sees all sequences without noise.

Shapes: M predicted positions of all studies, C channels of the encoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.objectives.averages import mean_over_studies
from gliomoe.pretrain.objectives.decoder import TokenDecoder
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.routing import balance
from gliomoe.pretrain.objectives.running_mean import RunningMean
from gliomoe.pretrain.samples.views import Views


class LatentPrediction(Objective):
    """Encoder, predictor, teacher, routing."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__(encoder, config)
        self.steps = config.run.steps
        width = config.model.decoder_width
        self.predictor = TokenDecoder(
            encoder.width, encoder.patch_size, width, config.model.decoder_depth
        )
        self.leave = nn.Linear(width, encoder.width)
        self.teacher = RunningMean(encoder)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss` and its parts; `target_deviation` falls to 0 if all targets become alike."""
        features = self.encoder(views.visible, views.mask.keep)
        tokens = self.predictor(features, views.mask, views.complete.spacing)
        predicted, target = self.leave(tokens).float(), self.targets(views)
        error = F.smooth_l1_loss(predicted, target, reduction="none").mean(1)
        study = views.mask.predict.nonzero()[:, 0]
        error = mean_over_studies(error, torch.ones_like(error), study, views.complete.studies)
        routing, shown = balance(features, self.weights)
        return {
            "loss": error + routing,
            "prediction": error.detach(),
            "target_deviation": deviation(target),
            **shown,
        }

    @torch.no_grad()
    def targets(self, views: Views) -> Tensor:
        """The teacher's tokens of the positions to predict, normalised one by one, [M, C]."""
        mask = views.mask
        tissue = mask.keep | mask.masked
        tokens = self.teacher.module(views.complete, tissue).tokens.float()
        return F.layer_norm(tokens[mask.predict[tissue]], tokens.shape[1:])

    def after_step(self, step: int) -> None:
        """Let the teacher follow the encoder."""
        super().after_step(step)
        start = self.weights.momentum
        self.teacher.update(self.encoder, start + (1 - start) * step / self.steps)


def deviation(target: Tensor) -> Tensor:
    """Standard deviation of each channel over the targets [M, C] of all processes.

    Returns:
        Scalar, mean over the channels, the same on every process.
    """
    total = distributed.mean(torch.stack([target, target.square(), torch.ones_like(target)]).sum(1))
    mean, square = total[:2] / total[2].clamp(min=1e-6)
    return (square - mean.square()).clamp(min=0).sqrt().mean()
