"""Cross-modality differential: attention to where T2 and FLAIR disagree.

The T2-FLAIR mismatch sign, bright in T2 and dark in FLAIR, marks IDH-mutant astrocytoma.
"""

import torch
from torch import Tensor, nn

from gliomoe.models.recompute import Recomputable


class CrossModalityDifferential(Recomputable):
    """Features of T2 and FLAIR times an attention made of their difference.

    F = γ (Conv3D(T2) - Conv3D(FLAIR)); its maximum and mean over the channels, a convolution and a
    sigmoid give the attention (MTS-UNET, Mechanism 2). The formula writes one `Conv3D` for
    both: they share it, so that equal images differ by exactly 0 however it is trained. Its
    channels and the 7³ of the attention's kernel, usual for spatial attention, are chosen.
    """

    def __init__(self, channels: int, gamma: float):
        super().__init__()
        self.gamma = gamma
        self.features = nn.Conv3d(1, channels, 3, padding=1)
        self.attention = nn.Conv3d(2, 1, 7, padding=3)

    def forward(self, t2: Tensor, flair: Tensor) -> tuple[Tensor, Tensor]:
        """Modulated features and the attention.

        Args:
            t2: [B, 1, D, H, W].
            flair: The same shape.

        Returns:
            [B, 2 C, D, H, W], those of T2 first, and [B, 1, D, H, W] in 0 to 1.
        """
        of_t2, of_flair = self.features(t2), self.features(flair)
        difference = self.gamma * (of_t2 - of_flair)
        summary = [difference.amax(1, keepdim=True), difference.mean(1, keepdim=True)]
        attention = self.attention(torch.cat(summary, dim=1)).sigmoid()
        return torch.cat([of_t2, of_flair], dim=1) * attention, attention


def tumour_gate(probability: Tensor, min_gate: float) -> Tensor:
    """G(P) = max(P, min_gate): what segmentation missed still counts a little (MTS-UNET, CMD).

    The paper calls `min_gate` a threshold of the probability map, hence the maximum and not
    min_gate + (1 - min_gate) P.

    Args:
        probability: Of tumour, any shape.
        min_gate: Least weight, 0.1 in the paper.
    """
    return probability.clamp(min=min_gate)


def gated_mean(features: Tensor, gate: Tensor | None) -> Tensor:
    """Mean over all positions, weighted by the gate, so that the tumour's size is not in it.

    Args:
        features: [B, C, D, H, W].
        gate: [B, 1, D, H, W] above 0; None weighs all alike.

    Returns:
        [B, C] float32.
    """
    if gate is None:
        return features.float().mean((2, 3, 4))
    gated = (features.float() * gate).sum((2, 3, 4))
    return gated / gate.sum((2, 3, 4))
