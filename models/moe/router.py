"""Which experts a token goes to: softmax over all experts, the best K of them (MAGPIE, eq. 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Decision:
    """What a router decides for N tokens."""

    logits: Tensor
    """[N, E] float32."""
    probabilities: Tensor
    """[N, E] float32."""
    choice: Tensor
    """[N, K] int64, best first."""
    gate: Tensor
    """[N, K] float32, the probabilities of the chosen experts, not renormalised."""


class Router(nn.Module):
    """Linear router, in float32 whatever the autocast."""

    def __init__(self, width: int, experts: int, top_k: int):
        super().__init__()
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(experts, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Decision:
        """Route tokens [N, C]."""
        with torch.autocast(x.device.type, enabled=False):
            logits = x.float() @ self.weight.float().T
            probabilities = logits.softmax(dim=-1)
        gate, choice = probabilities.topk(self.top_k, dim=-1)
        return Decision(logits, probabilities, choice, gate)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"experts={len(self.weight)}, top_k={self.top_k}"
