"""Dropless mixture of experts: every token reaches all of its chosen experts."""

import torch
from torch import Tensor, nn

from gliomoe.models.moe.experts import Experts
from gliomoe.models.moe.router import Decision, Router


class MixtureOfExperts(nn.Module):
    """Weighted sum of the best K of E experts (MAGPIE, eq. 4)."""

    def __init__(self, width: int, hidden: int, experts: int, top_k: int):
        super().__init__()
        self.router = Router(width, experts, top_k)
        self.experts = Experts(experts, width, hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Decision]:
        """Mixed tokens.

        Args:
            x: [N, C].

        Returns:
            [N, C], and what the router decided.
        """
        decision = self.router(x)
        experts, top_k = decision.probabilities.shape[1], self.router.top_k
        chosen = decision.choice.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=experts)
        sorted_outputs = self.experts(x.index_select(0, order // top_k), counts)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        outputs = sorted_outputs.index_select(0, place).unflatten(0, (-1, top_k))
        return (outputs * decision.gate.unsqueeze(-1)).sum(dim=1), decision

    def inactive_parameters(self) -> int:
        """Parameters of the experts that a token does not reach."""
        experts = len(self.experts.gate_up)
        each = sum(parameter.numel() for parameter in self.experts.parameters()) // experts
        return each * (experts - self.router.top_k)
