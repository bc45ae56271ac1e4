"""From exclusive classes to the overlapping regions that every model answers with."""

import torch
from torch import Tensor, nn

REGION_CLASSES = ((3,), (1, 3), (1, 2, 3))
"""Canonical labels of ET, TC and WT: 1 necrotic core, 2 oedema, 3 enhancing, 4 cavity."""

REGIONS = len(REGION_CLASSES)
"""Enhancing tumour, tumour core, whole tumour: overlapping, one sigmoid each."""


def region_logits(classes: Tensor) -> Tensor:
    """Logits whose sigmoid is the summed softmax probability of the classes of each region.

    Args:
        classes: [B, K, …] logits of exclusive classes, K = 4, or 5 with the resection cavity.

    Returns:
        [B, 3, …] float32.
    """
    logits = classes.float()
    inside = [torch.logsumexp(logits[:, list(labels)], dim=1) for labels in REGION_CLASSES]
    outside = [
        torch.logsumexp(logits[:, [k for k in range(logits.shape[1]) if k not in labels]], dim=1)
        for labels in REGION_CLASSES
    ]
    return torch.stack(inside, dim=1) - torch.stack(outside, dim=1)


def region_layer(channels: int) -> nn.Conv3d:
    """Last layer of a decoder that segments regions; it starts near their low frequency."""
    layer = nn.Conv3d(channels, REGIONS, 1)
    nn.init.constant_(layer.get_parameter("bias"), -2.0)
    return layer
