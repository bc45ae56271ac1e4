"""What every pretraining objective offers, as a type."""

from typing import cast

from torch import Tensor, nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.running_mean import RunningMean
from gliomoe.pretrain.samples.views import Views


class Objective(nn.Module):
    """Encoder and loss; subclasses add their parts and `forward`."""

    averaged: RunningMean | None
    """Running mean of the encoder, with `optim.ema`."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__()
        self.weights = config.loss
        self.encoder: Encoder = encoder
        self.decay = config.optim.ema
        self.averaged = RunningMean(encoder) if self.decay else None

    def __call__(self, views: Views) -> dict[str, Tensor]:
        """Scalars by name: `loss` and its parts, and `expert_use` [layers, E] if there is any."""
        return super().__call__(views)

    @property
    def published(self) -> Encoder:
        """The encoder that an export takes: its running mean, if there is one."""
        return self.encoder if self.averaged is None else cast(Encoder, self.averaged.module)

    def after_step(self, step: int) -> None:
        """Follow the weights that step number `step` (from 0) changed; skipped steps do not count.

        The mean forgets its beginning: its decay is (1 + step) / (10 + step) until that exceeds
        `optim.ema`.
        """
        if self.averaged is not None:
            self.averaged.update(self.encoder, min(self.decay, (1 + step) / (10 + step)))

    def picture(self, views: Views) -> Tensor | None:
        """Volumes with every masked position predicted, [V, 1, D, H, W]; None without a decoder."""
        return None
