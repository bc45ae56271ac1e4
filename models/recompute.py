"""Gradient checkpointing: blocks that compute their activations again instead of keeping them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A block whose activations can be computed again in the backward pass.

    Subclasses write `forward` as usual; `set_recompute` decides. Gradients are the same, memory
    is one block's activations instead of all, at the price of a second forward pass.
    """

    recompute = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of `forward`, whose activations are kept or not."""
        if not (self.recompute and torch.is_grad_enabled()):
            return super().__call__(*args, **kwargs)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), _frozen_statistics(self)

        return checkpoint(
            super().__call__, *args, use_reentrant=False, context_fn=contexts, **kwargs
        )


def set_recompute(module: nn.Module, enabled: bool) -> None:
    """Switch gradient checkpointing of every block that can do it."""
    for part in module.modules():
        if isinstance(part, Recomputable):
            part.recompute = enabled


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Batch normalisation counts a batch once, although it passes twice."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
