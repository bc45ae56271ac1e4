"""Residual blocks of 3³ convolutions (He et al. 2016) with the normalisation of choice."""

from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import normalisation


def conv_norm_relu(channels_in: int, channels_out: int, norm: str, stride: int = 1) -> nn.Module:
    """Convolution of 3³, normalisation, ReLU; side n becomes ceil(n / stride)."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        normalisation(norm, channels_out),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """ReLU of two normalised convolutions of 3³ beside an identity."""

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.first = conv_norm_relu(channels, channels, norm)
        self.second = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm = normalisation(norm, channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return self.activation(x + self.norm(self.second(self.first(x))))
