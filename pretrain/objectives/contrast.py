"""Objective `contrast`: the two views of a study against those of other subjects (MAGPIE, eq. 8).

Shapes: B studies of this rank, R rows (2B on each rank), C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.features import Features
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.routing import balance
from gliomoe.pretrain.samples.views import Views


def info_nce(own: Tensor, rows: Tensor, subject: Tensor, first: int, temperature: float) -> Tensor:
    """Logits of InfoNCE: similarity over temperature, -inf where a row is neither.

    Args:
        own: [2B, C] of unit length; row i and row i + B are the views of one study.
        rows: [R, C] of all ranks; `own` are the rows from `first` on.
        subject: [R] int64, subject of each row.
        first: Number of this rank's first row.
        temperature: τ.

    Returns:
        [2B, R] float32; a row's own view and other sessions of its subject are -inf.
    """
    count = len(own)
    mine = torch.arange(count, device=own.device) + first
    partner = positives(count, first, own.device)
    same = subject[mine, None] == subject[None]
    same[torch.arange(count, device=own.device), partner] = False
    return (own @ rows.T / temperature).masked_fill(same, -torch.inf)


def positives(count: int, first: int, device: torch.device) -> Tensor:
    """[count] int64, the row of the other view of each of this rank's rows."""
    return torch.arange(count, device=device).roll(-(count // 2)) + first


class Contrast(nn.Module):
    """Projector and loss."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__()
        width = encoder.width
        self.temperature = config.loss.temperature
        self.other_sessions = config.loss.other_sessions
        self.projector = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, 128)
        )

    def forward(self, features: Features, views: Views) -> tuple[Tensor, Tensor]:
        """Loss and the share of rows whose other view is the most similar, scalars."""
        projected = self.projector(features.pooled)
        with torch.autocast(projected.device.type, enabled=False):
            own = F.normalize(projected.float(), dim=1)
            rows = distributed.gather(own)
            first = distributed.world()[0] * len(own)
            studies = torch.arange(len(own) // 2, device=own.device) + first
            apart = studies if self.other_sessions else views.subject
            subject = distributed.gather(apart.repeat(2))
            logits = info_nce(own, rows, subject, first, self.temperature)
            partner = positives(len(own), first, own.device)
            loss = F.cross_entropy(logits, partner)
            return loss, (logits.argmax(1) == partner).float().mean()


class ContrastOnly(Objective):
    """Encoder, projector, routing."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__(encoder, config)
        self.contrast = Contrast(encoder, config)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss` and its parts."""
        features = self.encoder(views.visible, views.mask.keep)
        contrast, accuracy = self.contrast(features, views)
        routing, shown = balance(features, self.weights)
        return {
            "loss": self.weights.contrast * contrast + routing,
            "contrast": contrast.detach(),
            "contrast_accuracy": accuracy,
            **shown,
        }
