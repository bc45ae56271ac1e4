"""Load balance of the experts, as a loss and as counts to share between processes."""

import torch
from torch import Tensor

from gliomoe.models.features import Routing


def expert_counts(routing: list[Routing]) -> Tensor:
    """How many token choices each expert got.

    Args:
        routing: One entry per layer, all with E experts.

    Returns:
        [layers, E] int64; sum it over the processes for a balance over the global batch.
    """
    return torch.stack(
        [
            torch.bincount(layer.choice.flatten(), minlength=layer.probabilities.shape[1])
            for layer in routing
        ]
    )


def routing_loss(routing: list[Routing], counts: Tensor | None = None) -> Tensor:
    """Load-balance loss, mean over the layers: E · Σ_e (share of choices of e) · (mean p(e)).

    It is 1 where all experts are used alike (Fedus et al. 2021, "Switch Transformers", eq. 4-6,
    with the share counted over K choices).

    Args:
        routing: What the encoder returned; without a mixture of experts the loss is 0.
        counts: [layers, E], token choices per expert over the global batch; None counts here.

    Returns:
        Scalar, float32.
    """
    if not routing:
        return torch.zeros(())
    counts = expert_counts(routing) if counts is None else counts
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    probabilities = torch.stack([layer.probabilities.mean(dim=0) for layer in routing])
    return probabilities.shape[1] * (shares * probabilities).sum(dim=1).mean()
