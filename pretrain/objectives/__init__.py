"""One module a pretraining objective, and their registry.

An objective takes an encoder and the configuration; its `forward(views)` returns scalars by name:
`loss`, which is minimised, and its parts, which are shown (`expert_use` is [layers, E]). With
`picture(views)` it also shows what it reconstructs.
"""

from collections.abc import Callable

from torch import nn

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.contrast import ContrastOnly
from gliomoe.pretrain.objectives.mae import MaskedAutoencoder
from gliomoe.pretrain.objectives.mae_contrast import MaskedContrast

OBJECTIVES: dict[str, Callable[[nn.Module, PretrainConfig], nn.Module]] = {
    "mae": MaskedAutoencoder,
    "contrast": ContrastOnly,
    "mae+contrast": MaskedContrast,
}
"""Name in `loss.objective` → module."""


def create_objective(encoder: nn.Module, config: PretrainConfig) -> nn.Module:
    """The objective that the configuration names.

    Raises:
        UsageError: If there is none of that name.
    """
    name = config.loss.objective
    if name not in OBJECTIVES:
        raise UsageError(f"unknown loss.objective {name!r}; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name](encoder, config)
