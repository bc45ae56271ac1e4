"""Intensities of about 0 to 1 as the z-scores that published networks were trained on."""

import torch
from torch import Tensor

MEAN = 0.5
DEVIATION = 0.25
"""Of the intensities of tissue, nearly enough: an exact z-score would depend on the crop."""


def centred(x: Tensor) -> Tensor:
    """Tissue with mean about 0 and deviation about 1, any shape; background stays exactly 0."""
    return torch.where(x != 0, (x - MEAN) / DEVIATION, 0)
