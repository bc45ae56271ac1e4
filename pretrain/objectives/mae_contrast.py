"""Objective `mae+contrast`: reconstruction + contrast + routing (MAGPIE, eq. 9), one encoding."""

from torch import Tensor

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.contrast import Contrast
from gliomoe.pretrain.objectives.mae import Reconstruction, fill_all
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.routing import balance
from gliomoe.pretrain.samples.views import Views


class MaskedContrast(Objective):
    """Encoder, decoder, projector, routing."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__(encoder, config)
        self.reconstruction = Reconstruction(encoder, config, config.loss.normalise)
        self.contrast = Contrast(encoder, config)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss` and its parts."""
        features = self.encoder(views.visible, views.mask.keep)
        error = self.reconstruction(features, views)
        contrast, accuracy = self.contrast(features, views)
        routing, shown = balance(features, self.weights)
        weights = self.weights
        return {
            "loss": weights.reconstruction * error + weights.contrast * contrast + routing,
            "reconstruction": error.detach(),
            "contrast": contrast.detach(),
            "contrast_accuracy": accuracy,
            **shown,
        }

    def picture(self, views: Views) -> Tensor:
        """Volumes with every masked position predicted, [V, 1, D, H, W]."""
        return fill_all(self.encoder, self.reconstruction, views)
