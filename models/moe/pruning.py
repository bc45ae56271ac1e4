"""Smaller mixtures out of trained ones: the least used experts of each layer go."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gliomoe.models.errors import ModelError
from gliomoe.models.model import Model
from gliomoe.models.moe.statistics import mixtures
from gliomoe.models.registry import create_model


def prune_experts(model: Model, counts: Mapping[str, Tensor], keep: int) -> Model:
    """A copy of a model with the most used experts of every layer.

    Router rows go with their experts, so that probabilities renormalise by the smaller softmax: a
    token whose experts all stay keeps its choice, and its gates keep their ratio.

    Args:
        model: Of a family with the setting `experts`; it stays as it is.
        counts: Name of each mixture → [E], from `statistics.counted_choices`.
        keep: Experts that each layer keeps, at least `top_k` and 2; order and ties by number.

    Returns:
        A model like any other, on the same device: its configuration rebuilds it, checkpoints
        hold it.

    Raises:
        ModelError: If the model has no mixtures, counts are missing, or `keep` does not fit.
    """
    layers = mixtures(model)
    if not layers:
        raise ModelError(f"{model.config.get('name')} has no mixtures of experts to prune")
    if missing := [name for name in layers if name not in counts]:
        raise ModelError(f"no counts for {missing[0]}; count over the whole model")
    tensors = model.state_dict()
    for name, layer in layers.items():
        experts, top_k = len(layer.router.weight), layer.router.top_k
        if not max(2, top_k) <= keep <= experts:
            raise ModelError(f"keep {keep}: must be from {max(2, top_k)} to {experts} experts")
        best = counts[name].argsort(descending=True, stable=True)[:keep].sort().values
        for own, tensor in layer.state_dict().items():  # each has one row per expert
            tensors[f"{name}.{own}"] = tensor[best.to(tensor.device)].clone()
    smaller = like(model, experts=keep)
    smaller.load_state_dict({n: t.clone() for n, t in tensors.items()}, assign=True)
    return smaller.train(model.training)


def like(model: Model, **changes: object) -> Model:
    """A model without weights, on the meta device, that differs in some settings."""
    config = model.config
    with torch.device("meta"):
        return create_model(config["name"], config["tasks"], **{**config["overrides"], **changes})
