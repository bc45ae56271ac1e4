"""Probabilities of marker logits."""

from types import ModuleType

import torch
from torch import Tensor

from gliomoe.models.errors import ModelError
from gliomoe.models.features import Activation


def class_logits(logits: Tensor) -> Tensor:
    """Logits [B, classes] of at least two classes; a binary marker [B, 1] gets a 0 before it."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Probability of each class.

    Args:
        logits: [B, 1] of a binary marker, or [B, C].
        activation: `softmax`, or `entmax15` (Peters et al. 2019), which can give exact zeros.

    Returns:
        [B, 1], the probability of the positive class, or [B, C]; float32.
    """
    full = class_logits(logits.float())
    entmax = activation == "entmax15"
    result = entmax_package().entmax15(full, dim=1) if entmax else full.softmax(1)
    return result[:, 1:] if logits.shape[1] == 1 else result


def entmax_package() -> ModuleType:
    """The package `entmax`, which comes with the extra `genes`."""
    try:
        import entmax
    except ImportError:
        raise ModelError("mdl_ca needs entmax: pip install 'gliomoe[genes]'") from None
    return entmax
