"""Balance of the experts over the batch of all processes."""

from torch import Tensor

from gliomoe.models.features import Features
from gliomoe.models.moe.balance import expert_counts, routing_loss, z_loss
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.sections import LossConfig


def balance(features: Features, weights: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """What the routers add to the loss, and what to show of them.

    Returns:
        Weighted loss, scalar, 0 without a mixture of experts; and `routing`, `router_z` if it has
        a weight, and `expert_use` [layers, E], each expert's share of the choices, if there is
        any.
    """
    if not features.routing:
        nothing = features.pooled.new_zeros(())
        return nothing, {"routing": nothing}
    counts = distributed.mean(expert_counts(features.routing).float())
    routing = routing_loss(features.routing, counts)
    use = counts / counts.sum(1, keepdim=True).clamp(min=1)
    loss, parts = weights.routing * routing, {"routing": routing.detach(), "expert_use": use}
    if weights.router_z:
        z = z_loss(features.routing, counts)
        loss, parts = loss + weights.router_z * z, {**parts, "router_z": z.detach()}
    return loss, parts
