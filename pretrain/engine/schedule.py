"""Learning rate as a function of the step."""

import math

from gliomoe.pretrain.sections import OptimConfig


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warm-up, then a cosine from `lr` down to `lr_end` at the last step.

    Args:
        step: Number of the step about to be taken, from 0.
        steps: Steps of the whole run.
        config: Rates and warm-up.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(steps - 1 - config.warmup, 1)
    return config.lr_end + (config.lr - config.lr_end) * (1 + math.cos(math.pi * done)) / 2
