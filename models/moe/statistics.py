"""How the experts of a model are used: choices counted while it runs, and what they say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.moe.router import choice_counts

IDLE = 0.01
"""An expert with a smaller share of the choices hardly takes part."""


@dataclass(frozen=True)
class ExpertUse:
    """Use of the experts of one layer."""

    layer: str
    share: tuple[float, ...]
    """Each expert's share of the choices, 1 in all."""
    entropy: float
    """Of the shares, relative to that of an even load: 1 is even, 0 is a single expert."""
    peak: float
    """Largest load over the mean load, from 1 to E."""
    idle: int
    """Experts with a share below `IDLE`."""


def mixtures(model: nn.Module) -> dict[str, MixtureOfExperts]:
    """The mixtures of a model by name, in the order in which they run."""
    return {n: part for n, part in model.named_modules() if isinstance(part, MixtureOfExperts)}


@contextmanager
def counted_choices(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Count the choices of every mixture over all forward passes inside the block.

    Yields:
        Name of the layer in the model → [E] int64, which grows. Gradient checkpointing runs layers
        twice: count without gradients.
    """
    layers = mixtures(model)
    counts = {
        name: torch.zeros(len(layer.router.weight), dtype=torch.int64)
        for name, layer in layers.items()
    }

    def count(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            counts[name] += choice_counts(output[1].choice, len(counts[name])).cpu()

        return hook

    handles = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def expert_use(counts: Mapping[str, Tensor]) -> list[ExpertUse]:
    """What counts of choices say, layer by layer.

    Args:
        counts: Name of the layer → [E]; shares do as well.
    """
    return [_use(name, load) for name, load in counts.items()]


def _use(name: str, load: Tensor) -> ExpertUse:
    """One layer; without any choice all experts are idle."""
    share = load.double() / load.sum().clamp(min=1e-12)
    even = torch.tensor(float(len(share))).log().clamp(min=1e-12)
    return ExpertUse(
        layer=name,
        share=tuple(share.tolist()),
        entropy=float(torch.special.entr(share).sum() / even),
        peak=float(share.max() * len(share)),
        idle=int((share < IDLE).sum()),
    )
