"""Optimiser, learning-rate schedule and what stays frozen."""

from collections.abc import Iterable

import torch
from torch import nn

from gliomoe.finetune.config import OptimConfig
from gliomoe.models.model import Model


def make_optimizer(model: Model, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, the encoder's in a group of their own.

    Args:
        model: Frozen parameters are left out.
        config: Each group keeps its initial rate in `initial_lr`.
    """
    encoder = {id(p) for p in model.encoder.parameters()}
    rates = (config.encoder_lr or config.lr, config.lr)
    groups = []
    for inside, rate in zip((True, False), rates, strict=True):
        trainable = [
            p for p in model.parameters() if p.requires_grad and (id(p) in encoder) is inside
        ]
        if trainable:
            groups.append({"params": trainable, "lr": rate, "initial_lr": rate})
    if config.name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
    )


def learning_rate_factor(step: int, steps: int, config: OptimConfig) -> float:
    """Polynomial decay to 0 after a linear warm-up, as a part of the initial rate.

    Args:
        step: Steps done so far.
        steps: Steps in all.
        config: Power and warm-up.
    """
    decay = (1 - step / steps) ** config.power
    return decay * min(1.0, (step + 1) / (config.warmup + 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's initial rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def freeze(parameters: Iterable[nn.Parameter]) -> None:
    """Keep parameters as they are."""
    for parameter in parameters:
        parameter.requires_grad_(False)
