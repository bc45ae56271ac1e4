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
    """[N, K] float32, the weights of the chosen experts."""


class Router(nn.Module):
    """Linear router, in float32 whatever the autocast.

    Args:
        width: Channels of a token.
        experts: E.
        top_k: K, experts that a token goes to.
        renormalise: Divide the gates of a token by their sum; the gates are its probabilities
            otherwise, as MAGPIE's are.
        biased: Keep a bias per expert that balances the load without a loss (Wang et al. 2024,
            "Auxiliary-Loss-Free Load Balancing"). It decides the choice and not the gate, and
            `balance.update_bias` changes it; gradients do not. The paper's gates are sigmoids,
            here they stay probabilities.
    """

    bias: Tensor | None

    def __init__(
        self, width: int, experts: int, top_k: int, renormalise: bool = False, biased: bool = False
    ):
        super().__init__()
        self.top_k = top_k
        self.renormalise = renormalise
        self.weight = nn.Parameter(torch.empty(experts, width))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.register_buffer("bias", torch.zeros(experts) if biased else None)

    def forward(self, x: Tensor) -> Decision:
        """Route tokens [N, C]."""
        with torch.autocast(x.device.type, enabled=False):
            logits = x.float() @ self.weight.float().T
            probabilities = logits.softmax(dim=-1)
        if self.bias is None:
            gate, choice = probabilities.topk(self.top_k, dim=-1)
        else:
            choice = (probabilities.detach() + self.bias.float()).topk(self.top_k, dim=-1).indices
            gate = probabilities.gather(1, choice)
        if self.renormalise:
            gate = gate / gate.sum(dim=1, keepdim=True)
        return Decision(logits, probabilities, choice, gate)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"experts={len(self.weight)}, top_k={self.top_k}, renormalise={self.renormalise}"


def choice_counts(choice: Tensor, experts: int) -> Tensor:
    """How often each expert was chosen, [E] int64; unlike `bincount` without reading a value."""
    chosen = choice.flatten()
    return chosen.new_zeros(experts).scatter_add_(0, chosen, torch.ones_like(chosen))
