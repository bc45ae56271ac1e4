"""Normalisation of each channel of each study, on maps of any size."""

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Instance normalisation, which group normalisation with one channel a group is.

    Notable: torch's modules refuse maps of a single voxel in training, which small crops have at
    the coarsest level; here such a map becomes the bias.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → the same shape."""
        cudnn = torch.backends.cudnn.enabled
        return torch.instance_norm(
            x, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn
        )

    def extra_repr(self) -> str:
        """Channels, for printing."""
        return str(len(self.weight))
