"""The convolutional blocks that an encoder-decoder is made of, by the name of its backbone."""

from torch import nn

from gliomoe.models.blocks.mednext import MedNeXtBlock, MedNeXtDown, MedNeXtUp
from gliomoe.models.blocks.residual import ResidualUnit

BACKBONES = ("mednext", "unet")


def block(backbone: str, channels: int, expansion: int, kernel: int) -> nn.Module:
    """A block at one resolution; expansion and kernel are those of MedNeXt alone."""
    if backbone == "mednext":
        return MedNeXtBlock(channels, expansion, kernel)
    return ResidualUnit(channels, channels)


def down(
    backbone: str, channels_in: int, channels_out: int, expansion: int, kernel: int
) -> nn.Module:
    """A block to half the resolution."""
    if backbone == "mednext":
        return MedNeXtDown(channels_in, channels_out, expansion, kernel)
    return ResidualUnit(channels_in, channels_out, stride=2)


def up(
    backbone: str, channels_in: int, channels_out: int, expansion: int, kernel: int
) -> nn.Module:
    """A block to twice the resolution."""
    if backbone == "mednext":
        return MedNeXtUp(channels_in, channels_out, expansion, kernel)
    return nn.ConvTranspose3d(channels_in, channels_out, 2, 2)
