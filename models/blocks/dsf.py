"""Fusion of tumour-aware and differential features for IDH."""

import torch
from torch import Tensor, nn


class DualStreamFusion(nn.Module):
    """[TAFE, CMD] → multilayer perceptron → one logit (MTS-UNET, DSF).

    The paper spells out neither the letters nor the perceptron: one hidden layer of the width of
    TAFE. Both vectors are normalised first, since one is bounded and the other is not.
    """

    def __init__(self, tafe: int, cmd: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(tafe), nn.LayerNorm(cmd)])
        self.mlp = nn.Sequential(
            nn.Linear(tafe + cmd, tafe), nn.ReLU(), nn.Dropout(dropout), nn.Linear(tafe, 1)
        )

    def forward(self, tafe: Tensor, cmd: Tensor) -> Tensor:
        """Logit [B, 1] of [B, tafe] and [B, cmd]."""
        parts = [norm(x) for norm, x in zip(self.norms, (tafe, cmd), strict=True)]
        return self.mlp(torch.cat(parts, dim=1))
