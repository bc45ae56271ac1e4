"""Balance of the experts: losses, counts over all processes, and a bias in place of a loss."""

import torch
from torch import Tensor, nn

from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.moe.router import choice_counts

_LEAST = 1e-6


def expert_counts(routing: list[Routing]) -> Tensor:
    """How many token choices each expert got.

    Args:
        routing: One entry per layer, all with E experts.

    Returns:
        [layers, E] int64; average it over the processes for a balance over the global batch.
    """
    return torch.stack(
        [choice_counts(layer.choice, layer.probabilities.shape[1]) for layer in routing]
    )


def routing_loss(routing: list[Routing], counts: Tensor | None = None) -> Tensor:
    """Load-balance loss, mean over the layers: E · Σ_e (share of choices of e) · (mean p(e)).

    It is 1 where all experts are used alike (Fedus et al. 2021, "Switch Transformers", eq. 4-6,
    with the share counted over K choices).

    Args:
        routing: What the encoder returned; without a mixture of experts the loss is 0.
        counts: [layers, E], token choices per expert, averaged over the processes; None counts
            here.

    Returns:
        Scalar, float32. Its mean over the processes is the loss of their joint batch, even if one
        has more tokens than another.
    """
    if not routing:
        return torch.zeros(())
    counts = expert_counts(routing) if counts is None else counts
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=_LEAST)
    total = torch.stack([layer.probabilities.sum(dim=0) for layer in routing])
    probabilities = total / _tokens(routing, counts).unsqueeze(1)
    return total.shape[1] * (shares * probabilities).sum(dim=1).mean()


def z_loss(routing: list[Routing], counts: Tensor | None = None) -> Tensor:
    """Mean of log²(Σ_e exp(logit e)) over tokens and layers (Zoph et al. 2022, "ST-MoE", eq. 5).

    It keeps logits small, where float32 and softmax are exact. The paper's weight is 0.001.

    Args:
        routing: What the encoder returned; without a mixture of experts the loss is 0.
        counts: As of `routing_loss`.

    Returns:
        Scalar, float32, with the same mean over the processes as `routing_loss`.
    """
    if not routing:
        return torch.zeros(())
    counts = expert_counts(routing) if counts is None else counts
    total = torch.stack([layer.logits.logsumexp(dim=1).square().sum() for layer in routing])
    return (total / _tokens(routing, counts)).mean()


@torch.no_grad()
def update_bias(model: nn.Module, counts: Tensor, rate: float) -> None:
    """Move every router's bias towards an even load (Wang et al. 2024, algorithm 1), in place.

    An expert below the mean load of its layer gains `rate`, one above it loses `rate`. Call it
    after an optimiser step, on all processes alike.

    Args:
        model: With routers that have a bias (`router_bias`), in the order in which they run.
        counts: [layers, E], choices of each expert over the global batch, as `expert_counts`
            gives them; shares do as well.
        rate: Step; the paper's is 0.001.

    Raises:
        ModelError: If the model has no such routers, or another number of them.
    """
    biases = [
        part.router.bias
        for part in model.modules()
        if isinstance(part, MixtureOfExperts) and part.router.bias is not None
    ]
    if len(biases) != len(counts) or not biases:
        raise ModelError(
            f"{len(counts)} layers of counts for {len(biases)} routers with a bias; "
            "build the model with router_bias=True"
        )
    counts = counts.float()
    for bias, step in zip(biases, (counts.mean(1, keepdim=True) - counts).sign(), strict=True):
        bias.add_(rate * step.to(bias))


def _tokens(routing: list[Routing], counts: Tensor) -> Tensor:
    """[layers], tokens behind the counts [layers, E], at least a very little."""
    totals = [
        count.sum() / layer.choice.shape[1] for count, layer in zip(counts, routing, strict=True)
    ]
    return torch.stack(totals).clamp(min=_LEAST)
