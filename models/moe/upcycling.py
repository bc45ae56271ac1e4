"""A mixture of experts out of a trained dense model (Komatsuzaki et al. 2023, "Sparse Upcycling").

Notable: experts here are narrower than the dense layer, which has K times their hidden channels.
The dense layer is therefore cut into K slices, every slice is copied to E / K experts, and the
router starts with equal rows for the K slices of one copy, a "virtual group" (He et al. 2024,
"Upcycling Large Language Models into Mixture of Experts"). A token's best K experts then are
a whole group, which sums to the dense layer. With K = 1 this would be the published original.
"""

import torch
from torch import Tensor

from gliomoe.models.errors import ModelError
from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.model import Model
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.moe.pruning import like
from gliomoe.models.moe.statistics import mixtures

ROUTER_STD = 0.02


def upcycle(model: Model, experts: int, **changes: object) -> Model:
    """A sparse copy of a dense model that computes the same function at the start.

    The same up to rounding, for every input, in what the encoder and the heads return beside
    `routing`: each token reaches one copy of the dense layer, with gates 1 / K that outputs times
    K make up for. The gates must sum to 1, so the new model has `renormalise`. Two groups may tie
    for a token by chance alone, whose output then is off; that is one in millions.

    Args:
        model: Built with `experts=1`; it stays as it is. Its `top_k` is K.
        experts: E, a multiple of K above it.
        **changes: Further settings, such as `router_bias`; none that change shapes.

    Returns:
        The model, on the same device. Router rows are drawn from torch's global generator; copies
        of a slice start equal and part as their tokens differ.

    Raises:
        ModelError: If the model is not dense, or E and K do not fit.
    """
    if mixtures(model):
        raise ModelError("only a dense model can be upcycled; build it with experts=1")
    sparse = like(model, experts=experts, renormalise=True, **changes)
    layers = mixtures(sparse)
    if not layers:
        raise ModelError(f"{model.config.get('name')} has no layer that experts={experts} changes")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, layer in layers.items():
        dense = model.get_submodule(name)
        if not isinstance(dense, FeedForward):
            raise ModelError(f"{name} is no dense feed-forward layer; build it with experts=1")
        for own in dense.state_dict():
            del tensors[f"{name}.{own}"]
        tensors.update({f"{name}.{n}": t for n, t in _sparse(dense, layer, name).items()})
    sparse.load_state_dict(tensors, assign=True)
    return sparse.train(model.training)


def _sparse(dense: FeedForward, layer: MixtureOfExperts, name: str) -> dict[str, Tensor]:
    """Tensors of a mixture by name: expert g · K + s is slice s of copy g."""
    top_k, experts = layer.router.top_k, len(layer.router.weight)
    copies, rest = divmod(experts, top_k)
    hidden = layer.experts.down.shape[2]
    if rest or copies < 2:
        raise ModelError(f"experts {experts}: must be a multiple of top_k ({top_k}) above it")
    if dense.down.in_features != top_k * hidden:
        raise ModelError(
            f"{name}: the dense layer has {dense.down.in_features} hidden channels, "
            f"{top_k} experts have {top_k * hidden}"
        )
    # [2 K H, C] → [K, 2 H, C]: rows are the K slices of the gate, then those of the other factor.
    weight = dense.gate_up.weight.detach()
    gate_up = weight.unflatten(0, (2, top_k, hidden)).transpose(0, 1).flatten(1, 2)
    down = dense.down.weight.detach().unflatten(1, (top_k, hidden)).transpose(0, 1) * top_k
    rows = torch.empty(copies, weight.shape[1], dtype=weight.dtype, device=weight.device)
    torch.nn.init.trunc_normal_(rows, std=ROUTER_STD)
    tensors = {
        "router.weight": rows.repeat_interleave(top_k, dim=0),
        "experts.gate_up": gate_up.repeat(copies, 1, 1),
        "experts.down": down.repeat(copies, 1, 1),
    }
    if layer.router.bias is not None:
        tensors["router.bias"] = torch.zeros(experts, device=weight.device)
    return tensors
