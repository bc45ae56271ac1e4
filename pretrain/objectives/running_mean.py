"""A running mean of a module's weights: the teacher of `jepa`, and what `optim.ema` exports."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """A copy of a module whose weights follow those of the original.

    It takes no gradient and is always in evaluation mode. As part of the objective it is the same
    on all processes and in every checkpoint. Its weights are float32 whatever the original's are:
    the steps of a mean are too small for bf16.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = deepcopy(module).requires_grad_(False).eval()
        self.restore()

    def restore(self) -> None:
        """Bring the weights back to float32, where the objective has been cast as a whole."""
        self.module.float()

    @torch.no_grad()
    def update(self, source: nn.Module, decay: float) -> None:
        """Weights ← decay · weights + (1 - decay) · those of `source`; buffers are copied."""
        weights: list[Tensor] = list(self.module.parameters())
        torch._foreach_lerp_(weights, [w.float() for w in source.parameters()], 1 - decay)
        for mine, theirs in zip(self.module.buffers(), source.buffers(), strict=True):
            mine.copy_(theirs)

    def train(self, mode: bool = True) -> "RunningMean":
        """Stay in evaluation mode."""
        return super().train(False)
