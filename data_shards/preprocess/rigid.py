"""The rigid motion that brings one image onto another.

Notable: the mutual information of Mattes et al. ("PET-CT image registration in the chest", 2003)
is maximised from coarse to fine with one thread and samples on a fixed lattice, so that the same
images give the same motion.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.preprocess.background import is_masked, tissue_mask
from gliomoe.data_shards.preprocess.case import Series
from gliomoe.data_shards.preprocess.world import coarse, one_thread, to_sitk

if TYPE_CHECKING:
    import SimpleITK as sitk

_BINS = 32
_LEVELS = (3, 1)
"""Factors on the voxel size, coarse to fine."""

_SHARES = (1.0, 0.3)
"""Share of the voxels that each level compares."""

_BORDER_MM = 9.0
"""Air around a head that takes part: its outline is what places it."""

_DIGITS = 9
"""Decimals of a motion that are kept; what is finer is noise of the arithmetic."""


@dataclass(frozen=True)
class Copy:
    """A series ready to be compared."""

    image: Series
    """Coarse, along R, A, S."""
    compared: np.ndarray
    """[D, H, W] bool, voxels that take part."""
    centre: np.ndarray
    """[3], mm, the middle of the tissue."""
    masked: bool
    """Whether the background was empty before."""


def make_copy(series: Series, spacing: float) -> Copy | None:
    """A copy of a series to be compared, None if it shows no tissue.

    Args:
        series: As its file has it.
        spacing: Voxel size of the copy in mm.
    """
    masked = is_masked(series.data)
    image = coarse(series, spacing)
    tissue = tissue_mask(image.data) & (image.mask if image.mask is not None else True)
    if not tissue.any():
        return None
    centre = image.affine[:3, :3] @ np.argwhere(tissue).mean(0) + image.affine[:3, 3]
    reach = max(1, round(_BORDER_MM / spacing))
    # What lies around an extracted brain is not seen in it, and must not count in a whole head.
    compared = tissue if masked else ndimage.binary_dilation(tissue, iterations=reach)
    return Copy(image, compared, centre, masked)


@one_thread()
def mutual_information(fixed: Copy, moving: Copy, motion: np.ndarray) -> float | None:
    """How much two images tell of each other, nats; None where they do not meet.

    Args:
        fixed: Where the motion leads.
        moving: What is moved.
        motion: [4, 4], from a place in `moving` to one in `fixed`, mm.
    """
    method = _method(fixed, moving)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInitialTransform(_transform(motion, fixed.centre))
    images = [to_sitk(copy.image.data, copy.image.affine) for copy in (fixed, moving)]
    try:
        return round(-float(method.MetricEvaluate(*images)), _DIGITS)
    except RuntimeError as error:
        if "samples" in str(error):
            return None
        raise


@one_thread()
def find_motion(fixed: Copy, moving: Copy, start: np.ndarray) -> np.ndarray | None:
    """The rigid motion of greatest mutual information near a first guess.

    Args:
        fixed: Where the motion leads.
        moving: What is moved.
        start: [4, 4], the guess.

    Returns:
        [4, 4], from a place in `moving` to one in `fixed`, mm; None if the search lost the image.
    """
    method = _method(fixed, moving)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentagePerLevel(_SHARES, 1)
    spacing = float(fixed.image.spacing[0])
    method.SetShrinkFactorsPerLevel(_LEVELS)
    method.SetSmoothingSigmasPerLevel([spacing * (level - 1) / 2 for level in _LEVELS])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.01, numberOfIterations=100, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = _transform(start, fixed.centre)
    method.SetInitialTransform(transform, inPlace=True)
    images = [to_sitk(copy.image.data, copy.image.affine) for copy in (fixed, moving)]
    try:
        method.Execute(*images)
    except RuntimeError as error:
        if "samples" in str(error):
            return None
        raise
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    forth = np.eye(4)
    forth[:3, :3] = turn
    forth[:3, 3] = np.array(transform.GetTranslation()) + centre - turn @ centre
    return np.round(np.linalg.inv(forth), _DIGITS)


def rotation_degrees(motion: np.ndarray) -> float:
    """The angle of a motion about its axis."""
    cosine = (np.trace(motion[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def displacement(motion: np.ndarray, copy: Copy, start: np.ndarray) -> float:
    """How far a motion carries the tissue of a copy on average, mm.

    Args:
        motion: [4, 4].
        copy: The image.
        start: [4, 4], the motion that it went through before.
    """
    affine = start @ copy.image.affine
    places = np.argwhere(copy.compared) @ affine[:3, :3].T + affine[:3, 3]
    moved = places @ motion[:3, :3].T + motion[:3, 3]
    return float(np.linalg.norm(moved - places, axis=1).mean())


def _method(fixed: Copy, moving: Copy) -> "sitk.ImageRegistrationMethod":
    """What search and comparison have in common."""
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(to_sitk(fixed.compared, fixed.image.affine))
    if moving.masked and not fixed.masked:
        method.SetMetricMovingMask(to_sitk(moving.compared, moving.image.affine))
    return method


def _transform(motion: np.ndarray, centre: np.ndarray) -> "sitk.Euler3DTransform":
    """The way back along a motion, as SimpleITK maps places in `fixed` to places in `moving`."""
    import SimpleITK as sitk

    back = np.linalg.inv(motion)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(back[:3, :3].ravel().tolist(), 1e-6)
    transform.SetTranslation((back[:3, 3] + back[:3, :3] @ centre - centre).tolist())
    return transform
