"""Dropless mixture of experts: every token reaches all of its chosen experts."""

from torch import Tensor, nn

from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.moe.dispatch import combine, dispatch, make_plan
from gliomoe.models.moe.experts import Experts
from gliomoe.models.moe.router import Decision, Router, choice_counts


class MixtureOfExperts(nn.Module):
    """Weighted sum of the best K of E experts (MAGPIE, eq. 4).

    Args:
        width: Channels of a token.
        hidden: Hidden channels of an expert.
        experts: E.
        top_k: K.
        renormalise: Gates of a token sum to 1; see `Router`.
        router_bias: Balance the load by a bias; see `Router`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        experts: int,
        top_k: int,
        renormalise: bool = False,
        router_bias: bool = False,
    ):
        super().__init__()
        self.router = Router(width, experts, top_k, renormalise, router_bias)
        self.experts = Experts(experts, width, hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Decision]:
        """Mixed tokens.

        Args:
            x: [N, C].

        Returns:
            [N, C], and what the router decided.
        """
        decision = self.router(x)
        plan = make_plan(decision.choice)
        counts = choice_counts(decision.choice, decision.probabilities.shape[1])
        gates = decision.gate.flatten().index_select(0, plan.order)
        return combine(self.experts(dispatch(x, plan), counts, gates), plan), decision

    def inactive_parameters(self) -> int:
        """Parameters of the experts that a token does not reach."""
        experts = len(self.experts.gate_up)
        each = sum(parameter.numel() for parameter in self.experts.parameters()) // experts
        return each * (experts - self.router.top_k)


def sparse_feed_forward(
    width: int,
    hidden: int,
    experts: int,
    top_k: int,
    renormalise: bool = False,
    router_bias: bool = False,
) -> MixtureOfExperts | FeedForward:
    """A mixture or, with one expert, the dense layer of the same active size, K · hidden."""
    if experts == 1:
        return FeedForward(width, top_k * hidden)
    return MixtureOfExperts(width, hidden, experts, top_k, renormalise, router_bias)
