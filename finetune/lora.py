"""Low-rank adapters on frozen weights (Hu et al. 2021, "LoRA").

A weight W acts as W + alpha / rank · up · down, of which only `up` and `down` train. `up` starts at
0, so that training starts at the pretrained network. `torch.nn.utils.parametrize` puts them in
place, whatever the layer does with its weight; `merge` leaves an ordinary network.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gliomoe.models.moe.experts import Experts


@dataclass(frozen=True)
class LoraConfig:
    """Size of the adapters of `freeze = "lora"`."""

    rank: int = 8
    """Rank of what is added to a weight."""
    alpha: float = 16.0
    """What is added is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        """Refuse what adapts nothing."""
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError("lora.rank must be at least 1 and lora.alpha positive")


class LowRank(nn.Module):
    """The weight of one layer, or of all experts of a mixture, with its adapter."""

    def __init__(self, weight: Tensor, config: LoraConfig):
        """`weight`: [..., rows, columns]."""
        super().__init__()
        *experts, rows, columns = weight.shape
        self.scale = config.alpha / config.rank
        self.down = nn.Parameter(weight.new_empty(*experts, config.rank, columns))
        self.up = nn.Parameter(weight.new_zeros(*experts, rows, config.rank))
        nn.init.trunc_normal_(self.down, std=columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, of the same shape."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(blocks: Iterable[nn.Module], config: LoraConfig) -> int:
    """Put adapters on the frozen weights of all linear layers and experts of some blocks.

    Args:
        blocks: Their routers keep their weights.
        config: Rank and scale.

    Returns:
        The number of adapted weights.
    """
    found = [pair for block in blocks for pair in _linear_weights(block)]
    for layer, name in found:
        parametrize.register_parametrization(layer, name, LowRank(getattr(layer, name), config))
    return len(found)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every adapter to its weight, and leave the layers as they were before there were any."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer):
            assert isinstance(layer.parametrizations, nn.ModuleDict)
            for name in list(layer.parametrizations):
                parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def _linear_weights(block: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Layers with the names of their frozen matrices."""
    for layer in block.modules():
        names = {"weight"} if isinstance(layer, nn.Linear) else set()
        if isinstance(layer, Experts):
            names = {"gate_up", "down"}
        for name in sorted(names):
            if not layer.get_parameter(name).requires_grad:
                yield layer, name
