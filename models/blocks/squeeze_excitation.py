"""Squeeze-and-excitation: channels weighed by what the whole map says (Hu et al. 2018)."""

from torch import nn

from gliomoe.models.errors import ModelError


def squeeze_excitation(channels: int, reduction: int) -> nn.Module:
    """Maps x become x · sigmoid(W₂ relu(W₁ mean(x))): MONAI's `ChannelSELayer`.

    The mean runs over all voxels of a study.

    Args:
        channels: C of the maps [B, C, D, H, W] that go in and come out.
        reduction: r; the hidden layer has C / r channels.
    """
    if not 1 <= reduction <= channels:
        raise ModelError(f"se_reduction {reduction}: must be between 1 and the channels {channels}")
    from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer

    return ChannelSELayer(3, channels, reduction)
