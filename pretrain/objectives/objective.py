"""What every pretraining objective offers, as a type."""

from torch import Tensor, nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.samples.views import Views


class Objective(nn.Module):
    """Encoder and loss; subclasses add their parts and `forward`."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__()
        self.weights = config.loss
        self.encoder: Encoder = encoder

    def __call__(self, views: Views) -> dict[str, Tensor]:
        """Scalars by name: `loss` and its parts, and `expert_use` [layers, E] if there is any."""
        return super().__call__(views)

    def picture(self, views: Views) -> Tensor | None:
        """Volumes with every masked position predicted, [V, 1, D, H, W]; None without a decoder."""
        return None
