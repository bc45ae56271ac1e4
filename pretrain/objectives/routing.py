"""Balance of the experts over the batch of all processes."""

from torch import Tensor

from gliomoe.models.features import Features
from gliomoe.models.moe.balance import expert_counts, routing_loss
from gliomoe.pretrain import distributed


def balance(features: Features) -> tuple[Tensor, Tensor | None]:
    """Routing loss and use of the experts.

    Returns:
        Scalar loss (0 without a mixture of experts), and [layers, E] each expert's share of the
        choices, or None.
    """
    if not features.routing:
        return features.pooled.new_zeros(()), None
    counts = distributed.mean(expert_counts(features.routing).float())
    use = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return routing_loss(features.routing, counts), use
