"""Small convolution blocks for the maps that stay at high resolution."""

from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution, instance normalisation, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1):
        padding = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(
            nn.Conv3d(channels_in, channels_out, kernel, stride, padding, bias=False),
            nn.InstanceNorm3d(channels_out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two convolutions of 3³ beside an identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvNormAct(channels, channels)
        self.second = ConvNormAct(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        return x + self.second(self.first(x))
