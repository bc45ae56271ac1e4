"""Optimiser and learning-rate schedule."""

import math

import torch
from torch import nn

from gliomoe.finetune.config import OptimConfig
from gliomoe.finetune.depth import block_names, parameter_depths
from gliomoe.models.model import Model


def make_optimizer(model: Model, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, grouped by rate and weight decay.

    New parts have the rate `lr`, those of the encoder too. With L blocks, depth n of the others has
    `encoder_lr` times `layer_decay` ** (L + 1 - n), as in BEiT; `gliomoe.finetune.depth` says what
    depth is, and that L + 1 is new.

    Args:
        model: Frozen parameters are left out.
        config: Each group keeps its initial rate in `initial_lr`.
    """
    encoder_lr = config.encoder_lr or config.lr
    depths = parameter_depths(model.encoder)
    newest = len(block_names(model.encoder)) + 1
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, inner = name.partition(".")
        rate = config.lr
        if part == "encoder" and depths[inner] < newest:
            rate = encoder_lr * config.layer_decay ** (newest - depths[inner])
        decay = 0.0 if config.name == "adamw" and _is_bias(name, parameter) else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    listed = [
        {"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(listed)
    return torch.optim.SGD(listed, momentum=config.momentum, nesterov=True)


def _is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Whether it shifts or scales channels; tables of biases by sequence have two axes."""
    return parameter.ndim < 2 or "bias" in name


def learning_rate_factor(step: int, steps: int, config: OptimConfig) -> float:
    """Polynomial or cosine decay to 0 after a linear warm-up, as a part of the initial rate.

    Args:
        step: Steps done so far.
        steps: Steps in all.
        config: Schedule and warm-up.
    """
    decay = (1 - step / steps) ** config.power
    if config.schedule == "cosine":
        decay = (1 + math.cos(math.pi * step / steps)) / 2
    return decay * min(1.0, (step + 1) / (config.warmup + 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's initial rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
