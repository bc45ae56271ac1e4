"""Cross-modality attention fusion: softmax weights of the sequences at every voxel."""

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import normalisation
from gliomoe.models.recompute import Recomputable


class CMAF(Recomputable):
    """Cross-modality attention fusion (MGMT-Net, §3.1).

    All M modalities go through one 1×1×1 projection to C' channels, normalisation and ReLU. A
    small perceptron sees the C' · M values of a voxel and weighs the modalities by a softmax; the
    weighted sum of the projections is the result.

    The paper speaks of two layers, C' to 4C' to C'/2, "for attention weighting". Their input must
    be the concatenation it describes, so C' · M, and a last layer must give the M scores.

    Notable: a modality is one channel, and normalisation takes away what one number times w + b
    could tell apart, so that all C' channels would start as one of two functions. Their offsets
    start spread over the range of the normalised values instead.
    """

    def __init__(
        self,
        modalities: int,
        channels: int,
        channels_in: int = 1,
        dropout: float = 0.2,
        norm: str = "batch",
    ):
        """`channels` is C', `channels_in` C; `dropout` follows the first layer."""
        super().__init__()
        self.projection = nn.Conv3d(channels_in, channels, 1, bias=False)
        self.norm = normalisation(norm, channels)
        self.attention = nn.Sequential(
            nn.Conv3d(modalities * channels, 4 * channels, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv3d(4 * channels, channels // 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv3d(channels // 2, modalities, 1),
        )
        nn.init.uniform_(self.norm.get_parameter("bias"), -1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Fused map and weights.

        Args:
            x: [B, M, C, D, H, W].

        Returns:
            [B, C', D, H, W], and [B, M, D, H, W] that sum to 1 over M, float32.
        """
        projected = torch.relu(self.norm(self.projection(x.flatten(0, 1))))
        projected = projected.unflatten(0, x.shape[:2])
        weights = self.attention(projected.flatten(1, 2)).float().softmax(1)
        shares = weights.to(projected.dtype).unsqueeze(2)
        return (projected * shares).sum(1), weights
