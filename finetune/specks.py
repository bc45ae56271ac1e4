"""Specks: a region of a few voxels is more often noise than tumour.

Where a case has no enhancing tumour, one voxel of it costs the whole Dice of that region, which is
why entries of the BraTS challenge leave out a region below a volume that they chose on held-out
cases (Isensee et al. 2020, "nnU-Net for brain tumor segmentation"). Its voxels then belong to the
region around it. Notable: the volume is chosen on validation cases of the run's folds alone, each
predicted by the model that did not train on it, and without a gain there nothing is left out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliomoe.data_shards.labels import REGIONS

_MM3_PER_ML = 1000.0
_BELOW = 0.49
"""Highest probability of a region that is left out; it must not reach 0.5 when resampled."""


@dataclass(frozen=True)
class Extent:
    """One region of one validation case."""

    dice: float
    predicted_ml: float
    true_ml: float


def volumes_ml(masks: Tensor, spacing: Tensor) -> Tensor:
    """Volume of each mask [R, D, H, W] bool in ml; `spacing` [3] in mm."""
    return masks.flatten(1).sum(1) * float(spacing.prod()) / _MM3_PER_ML


def without_specks(
    regions: Tensor, spacing: Tensor, smallest: Mapping[str, float]
) -> tuple[Tensor, dict[str, float]]:
    """Region probabilities, those of a region that is at most so large everywhere below 0.5.

    Args:
        regions: [R, D, H, W] float, in the order of `REGIONS`; left as they are.
        spacing: [3] mm.
        smallest: Region → ml; regions that are not named stay.

    Returns:
        The probabilities, and region → ml of what was left out.
    """
    volumes = volumes_ml(regions > 0.5, spacing)
    limits = torch.tensor([smallest.get(region, 0.0) for region in REGIONS])
    specks = (volumes > 0) & (volumes <= limits)
    kept = torch.where(specks[:, None, None, None], regions.clamp(max=_BELOW), regions)
    rows = zip(REGIONS, volumes.tolist(), specks.tolist(), strict=True)
    return kept, {region: volume for region, volume, speck in rows if speck}


def smallest_ml(cases: Iterable[Mapping[str, Extent]], most: float) -> dict[str, float]:
    """Region → volume up to which it is left out, 0 where that helps no validation case.

    Args:
        cases: Region → extent, of each validation case with a segmentation.
        most: No volume above this is chosen, in ml.
    """
    by_region: dict[str, list[Extent]] = {}
    for case in cases:
        for region, extent in case.items():
            by_region.setdefault(region, []).append(extent)
    return {region: _best_limit(extents, most) for region, extents in by_region.items()}


def _best_limit(extents: Sequence[Extent], most: float) -> float:
    """The smallest limit with the highest mean Dice, halfway (in logarithm) to the next volume."""
    volumes = sorted({extent.predicted_ml for extent in extents if extent.predicted_ml})
    candidates = [0.0, *(volume for volume in volumes if volume <= most)]
    best = max(candidates, key=lambda limit: (_mean_dice(extents, limit), -limit))
    if not best:
        return 0.0
    larger = [volume for volume in volumes if volume > best]
    return min(math.sqrt(best * larger[0]), most) if larger else best


def _mean_dice(extents: Sequence[Extent], limit: float) -> float:
    """Mean Dice if predictions of at most `limit` ml are left out."""
    kept = (e.dice if e.predicted_ml > limit else float(e.true_ml == 0) for e in extents)
    return sum(kept) / len(extents)
