"""Lesions of one region of one case: found, missed, invented; and its satellites by size.

Lesion-wise as in BraTS 2023: components are 26-connected; the truth is dilated by 3 mm and its
components that then touch count as one lesion; a lesion is found if a predicted component touches
it so dilated, and its Dice is that with all such components. Lesions of the truth up to 50 mm³ are
not counted, neither for nor against.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

DILATION_MM = 3.0
MIN_MM3 = 50.0

SIZES = {"<3": (0.0, 3.0), "3-5": (3.0, 5.0), "5-10": (5.0, 10.0), ">=10": (10.0, math.inf)}
"""Class of a satellite → equivalent diameter in mm, from and below."""

_TOUCHING = ndimage.generate_binary_structure(3, 3)
_STEP = ndimage.generate_binary_structure(3, 2)
"""The dilation's element, 18-connected as in the code of the challenge."""


@dataclass(frozen=True)
class LesionFigures:
    """Counts of one region, and its lesion-wise Dice."""

    lesions: int
    """Lesions of the truth larger than `MIN_MM3`."""
    found: int
    """Those of them that a predicted component touches."""
    predicted: int
    """Components of the prediction."""
    matched: int
    """Those of them that touch a lesion of any size."""
    dice: float
    """Mean Dice of the lesions, each invented component counting as 0; 1 where nothing is to be
    found and nothing is invented."""


@dataclass(frozen=True)
class Satellite:
    """A component of the truth beside the largest one."""

    diameter: float
    """Of the sphere of its volume, in mm."""
    found: bool
    """Whether a predicted voxel lies in it."""

    @property
    def size(self) -> str:
        """Its key in `SIZES`."""
        return next(name for name, (low, high) in SIZES.items() if low <= self.diameter < high)


def lesion_figures(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]
) -> LesionFigures:
    """Figures of one region.

    Args:
        prediction: [D, H, W] bool.
        truth: [D, H, W] bool.
        spacing: Voxel size in mm along D, H, W. The dilation goes in whole voxels, at least one;
            3 mm are 3 at 1 mm.
    """
    steps = max(1, round(DILATION_MM / float(np.mean(spacing))))
    box = _box(prediction | truth, steps)
    prediction, truth = prediction[box], truth[box]
    predicted, components = ndimage.label(prediction, _TOUCHING)
    grown = ndimage.binary_dilation(truth, _STEP, steps) if truth.any() else truth
    # A component of the dilated truth is the dilation of its lesion: nothing else reaches into it.
    lesion, lesions = ndimage.label(grown, _TOUCHING)
    touch = np.zeros((lesions + 1, components + 1), bool)
    touch[lesion, predicted] = True
    touch = touch[1:, 1:]
    voxels = np.bincount(lesion[truth], minlength=lesions + 1)[1:]
    shared = np.bincount(lesion[truth & prediction], minlength=lesions + 1)[1:]
    sizes = np.bincount(predicted.ravel(), minlength=components + 1)[1:]
    counted = voxels * math.prod(spacing) > MIN_MM3
    matched = touch.any(0)
    dice = (2 * shared / (voxels + touch @ sizes))[counted]
    judged = len(dice) + int((~matched).sum())
    return LesionFigures(
        lesions=len(dice),
        found=int(touch[counted].any(1).sum()),
        predicted=components,
        matched=int(matched.sum()),
        dice=float(dice.sum() / judged) if judged else 1.0,
    )


def satellites(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]
) -> tuple[Satellite, ...]:
    """Every 26-connected component of the truth but the largest, by size and whether it was found.

    Components are not merged and of any size, unlike lesions.

    Args:
        prediction: [D, H, W] bool.
        truth: [D, H, W] bool.
        spacing: Voxel size in mm along D, H, W.
    """
    component, count = ndimage.label(truth, _TOUCHING)
    if count < 2:
        return ()
    voxels = np.bincount(component.ravel())[1:]
    hit = np.bincount(component[truth & prediction], minlength=count + 1)[1:] > 0
    diameters = np.cbrt(6 * voxels * math.prod(spacing) / math.pi)
    main = int(voxels.argmax())
    return tuple(Satellite(float(diameters[i]), bool(hit[i])) for i in range(count) if i != main)


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The bounding box of a mask with a margin; nothing of an empty one."""
    if not mask.any():
        return (slice(0, 0),) * mask.ndim
    sides = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))
        sides.append(slice(max(inside[0] - margin, 0), inside[-1] + margin + 1))
    return tuple(sides)
