"""Objective `mae`: masked reconstruction alone."""

from dataclasses import replace

import torch
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
    """Decoder and loss."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__()
        model = config.model
        self.patch_size = encoder.patch_size
        self.decoder = Decoder(
            encoder.width, encoder.patch_size, model.decoder_width, model.decoder_depth
        )

    def forward(self, features: Features, views: Views) -> Tensor:
        """Loss of the positions to predict, scalar."""
        pairs = pair_patches(views.mask, views.complete)
        predicted = self.decoder(features, views.mask, pairs, views.complete.spacing)
        target = target_patches(pairs, views.complete, self.patch_size)
        return reconstruction_loss(predicted, target, pairs.study, views.complete.studies)

    @torch.no_grad()
    def fill_in(self, features: Features, views: Views) -> Tensor:
        """The complete volumes, their predicted positions replaced by what the decoder makes.

        Predictions take the mean and deviation of the true patch, which the loss leaves open.

        Returns:
            [V, 1, D, H, W] float32.
        """
        pairs = pair_patches(views.mask, views.complete)
        predicted = self.decoder(features, views.mask, pairs, views.complete.spacing)
        target = target_patches(pairs, views.complete, self.patch_size)
        _, mean, deviation = normalise(target)
        filled = views.complete.voxels.float().clone()
        grid = patches(filled, self.patch_size)  # a view: writing here writes the volume
        shape = (-1, *(self.patch_size,) * 3)
        made = (predicted.float() * deviation + mean).view(shape)
        grid[pairs.volume, *pairs.position.unbind(1)] = made
        return filled


class MaskedAutoencoder(Objective):
    """Encoder, decoder, routing."""

    def __init__(self, encoder: Encoder, config: PretrainConfig):
        super().__init__(encoder, config)
        self.reconstruction = Reconstruction(encoder, config)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss` and its parts."""
        features = self.encoder(views.visible, views.mask.keep)
        error = self.reconstruction(features, views)
        routing, shown = balance(features, self.weights)
        return {
            "loss": error + routing,
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
