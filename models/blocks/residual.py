"""Residual blocks of 3³ convolutions (He et al. 2016) with the normalisation of choice."""

from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import normalisation


def conv3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv3d:
    """A 3³ convolution without bias that keeps the variance through ReLU (He et al. 2015)."""
    layer = nn.Conv3d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def conv_norm_relu(channels_in: int, channels_out: int, norm: str, stride: int = 1) -> nn.Module:
    """Convolution of 3³, normalisation, ReLU; side n becomes ceil(n / stride)."""
    return nn.Sequential(
        conv3(channels_in, channels_out, stride),
        normalisation(norm, channels_out),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """ReLU of two normalised convolutions of 3³ beside an identity."""

    def __init__(self, channels: int, norm: str):
        super().__init__()
        self.first = conv_norm_relu(channels, channels, norm)
        self.second = conv3(channels, channels)
        self.norm = normalisation(norm, channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return self.activation(x + self.norm(self.second(self.first(x))))
