"""A module in training is asked something, and nothing of it shows in the training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def asked(module: nn.Module, precision: str) -> Iterator[torch.device]:
    """A module as it is used: evaluation mode, no gradients; then each part's mode is put back.

    Args:
        module: What is asked inside the block.
        precision: Of the run's arithmetic.

    Yields:
        Where the module lies.
    """
    modes = {part: part.training for part in module.modules()}
    device = next(module.parameters()).device
    module.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, precision != "fp32"):
            yield device
    finally:
        for part, training in modes.items():
            part.training = training
