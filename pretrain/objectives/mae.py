"""Objective `mae`: masked reconstruction alone (He et al. 2022; MAGPIE, eq. 7)."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.features import Features
from gliomoe.models.tissue import patches
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.decoder import Decoder, pair_patches, target_patches
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.reconstruction import normalise, reconstruction_loss
from gliomoe.pretrain.objectives.routing import balance
from gliomoe.pretrain.samples.views import Views


class Reconstruction(nn.Module):
    """Decoder and loss.

    Args:
        encoder: Whose tokens are decoded.
        config: The run's configuration.
        normalised: Predict patches normalised by their own mean and deviation.
        distance: Of predicted and true voxels.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: PretrainConfig,
        normalised: bool,
        distance: Callable[..., Tensor] = F.mse_loss,
    ):
        super().__init__()
        model = config.model
        self.normalised, self.distance = normalised, distance
        self.by_study = config.loss.average == "study"
        self.patch_size = encoder.patch_size
        self.decoder = Decoder(
            encoder.width, encoder.patch_size, model.decoder_width, model.decoder_depth
        )

    def forward(self, features: Features, views: Views) -> Tensor:
        """Loss of the positions to predict, scalar."""
        pairs = pair_patches(views.mask, views.complete)
        predicted = self.decoder(features, views.mask, pairs, views.complete.spacing)
        target = target_patches(pairs, views.complete, self.patch_size)
        return reconstruction_loss(
            predicted,
            target,
            pairs.study,
            views.complete.studies,
            normalised=self.normalised,
            by_study=self.by_study,
            distance=self.distance,
        )

    @torch.no_grad()
    def fill_in(self, features: Features, views: Views) -> Tensor:
        """The complete volumes, their predicted positions replaced by what the decoder makes.

        Normalised predictions take the mean and deviation of the true patch, which the loss leaves
        open.

        Returns:
            [V, 1, D, H, W] float32.
        """
        pairs = pair_patches(views.mask, views.complete)
        made = self.decoder(features, views.mask, pairs, views.complete.spacing).float()
        if self.normalised:
            target = target_patches(pairs, views.complete, self.patch_size)
            _, mean, deviation = normalise(target)
            made = made * deviation + mean
        filled = views.complete.voxels.float().clone()
        grid = patches(filled, self.patch_size)  # a view: writing here writes the volume
        shape = (-1, *(self.patch_size,) * 3)
        grid[pairs.volume, *pairs.position.unbind(1)] = made.view(shape)
        return filled


class MaskedAutoencoder(Objective):
    """Encoder, decoder, routing."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__(encoder, config)
        self.reconstruction = Reconstruction(encoder, config, config.loss.normalise)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss` and its parts."""
        features = self.encoder(views.visible, views.mask.keep)
        error = self.reconstruction(features, views)
        routing, shown = balance(features, self.weights)
        return {
            "loss": self.weights.reconstruction * error + routing,
            "reconstruction": error.detach(),
            **shown,
        }

    def picture(self, views: Views) -> Tensor:
        """Volumes with every masked position predicted, [V, 1, D, H, W]."""
        return fill_all(self.encoder, self.reconstruction, views)


def fill_all(encoder: Encoder, reconstruction: Reconstruction, views: Views) -> Tensor:
    """Predict all masked positions of some views, not only those drawn for the loss."""
    with torch.no_grad():
        features = encoder(views.visible, views.mask.keep)
        everything = replace(views.mask, predict=views.mask.masked)
        return reconstruction.fill_in(features, replace(views, mask=everything))
