"""What a model looked at: attention and experts of one window of a study, on grids of their own.

Maps are of the window around the predicted tumour, at the resolution at which the model has them:
nothing is blended or resampled.
Shapes: n channels of a map, d h w its grid, D H W the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gliomoe.data_shards.batch import StudySample
from gliomoe.finetune.dataset import crop_start
from gliomoe.finetune.inference import InferenceConfig, windows_of
from gliomoe.finetune.precision import autocast
from gliomoe.models.features import Predictions, Routing
from gliomoe.models.model import Model


@dataclass(frozen=True)
class AttentionMap:
    """One map of a window."""

    values: np.ndarray
    """[d, h, w, n] float32, 0 to 1."""
    affine: np.ndarray
    """[4, 4] voxel of the map → world, mm."""


@torch.inference_mode()
def explain(
    model: Model,
    sample: StudySample,
    regions: Tensor | None,
    affine: np.ndarray,
    config: InferenceConfig,
) -> dict[str, AttentionMap]:
    """Attention maps of a model, and the probability of each expert at each token.

    Args:
        model: In evaluation mode.
        sample: The study.
        regions: [R, D, H, W] predicted probabilities, whose last is the whole tumour; None looks
            at the middle of the tissue.
        affine: [4, 4] of the study's grid.
        config: Size of the window, and precision.

    Returns:
        Name → map; `experts_<layer>` for each mixture of experts.
    """
    mask = (sample.voxels != 0).any(0) if regions is None else regions[-1] > 0.5
    if not mask.any():
        mask = (sample.voxels != 0).any(0)
    predictions, start, size = predict_window(model, sample, mask, config)
    maps = {**predictions.features.maps, **predictions.maps}
    for layer in predictions.features.routing:
        maps[f"experts_{layer.layer}"] = expert_map(layer, size)
    return {
        name: AttentionMap(
            values[0].movedim(0, -1).float().cpu().numpy(),
            coarser(affine, start, size, values.shape[2:]),
        )
        for name, values in maps.items()
    }


def predict_window(
    model: Model, sample: StudySample, mask: Tensor, config: InferenceConfig
) -> tuple[Predictions, tuple[int, int, int], list[int]]:
    """What a model says of one window of a study.

    Args:
        model: In evaluation mode.
        sample: The study.
        mask: [D, H, W] bool, about whose middle the window lies; some of it is True.
        config: Largest size of the window, and precision.

    Returns:
        Predictions for a batch of one study, first voxel of the window and its size.
    """
    centre = mask.nonzero().float().mean(0).round().long()
    shape = tuple(sample.voxels.shape[1:])
    size = [min(side, most) for side, most in zip(shape, config.window, strict=True)]
    start = crop_start(centre, shape, size)
    d, h, w = (slice(first, first + side) for first, side in zip(start, size, strict=True))
    device = next(model.parameters()).device
    batch = windows_of(sample, sample.voxels[None, :, d, h, w].to(device))
    with autocast(config.precision, device):
        return model(batch), start, size


def expert_map(layer: Routing, size: Sequence[int]) -> Tensor:
    """Probability of each expert at the tokens of a batch of one study; 0 where there is none.

    Args:
        layer: What a router decided; registers are left out.
        size: D, H, W of the window.

    Returns:
        [1, E, d, h, w] on the grid of the layer's tokens.
    """
    grid = [-(-side // layer.patch_size) for side in size]
    tokens = layer.position[:, 0] >= 0
    experts = layer.probabilities.shape[1]
    values = layer.probabilities.new_zeros(*grid, experts)
    values[layer.position[tokens].unbind(1)] = layer.probabilities[tokens]
    return values.movedim(-1, 0)[None]


def coarser(
    affine: np.ndarray, start: Sequence[int], size: Sequence[int], grid: Sequence[int]
) -> np.ndarray:
    """Affine of a map of a window, coarser by a power of two; its last voxels may reach beyond.

    Args:
        affine: [4, 4] of the grid.
        start: First voxel of the window.
        size: D, H, W of the window.
        grid: d, h, w of the map.
    """
    factor = next(
        2**level
        for level in range(16)
        if all(-(-side // 2**level) == n for side, n in zip(size, grid, strict=True))
    )
    placed = affine.astype(float).copy()
    placed[:3, :3] *= factor
    first = np.array(start) + (factor - 1) / 2  # centre of the map's first voxel
    placed[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    return placed
