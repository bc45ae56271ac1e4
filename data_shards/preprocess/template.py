"""A template for brain extraction: the MNI152 brain that nilearn ships, in a model head.

Notable: nilearn's template ends at the brain. Matched by itself it grows until its edge meets the
skin, so a dark skull and a bright scalp of usual thickness are put around it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.mni import BRAIN_T1, mni_map
from gliomoe.data_shards.preprocess.case import Series
from gliomoe.data_shards.preprocess.resample import resample_image

_SKULL_MM, _SKULL = 8.0, 25.0
_SCALP_MM, _SCALP = 16.0, 190.0
"""Outer distance from the brain, and value beside a white matter of about 200."""

_COMPARED_MM = 26.0
_BASE_MM = -22.0
"""Height of the template below which face and neck begin and only the brain is compared."""

_MARGIN_MM = 30.0

CENTRE = (0.0, -18.0, 10.0)
"""Middle of the template's brain, mm."""

TOP = 87.0
"""Height of the template's scalp, mm."""


@dataclass(frozen=True)
class Template:
    """The model head on a coarse grid along R, A, S."""

    image: Series
    brain: np.ndarray
    """[D, H, W] float32, share of brain."""
    compared: np.ndarray
    """[D, H, W] bool, voxels that take part in a comparison."""


@lru_cache(maxsize=2)
def head_template(spacing: float) -> Template:
    """The model head.

    Args:
        spacing: Voxel size in mm.

    Raises:
        DataError: If nilearn is not installed.
    """
    data, affine, box = _brain()
    low = affine[:3, 3] + [side.start for side in box] - _MARGIN_MM
    high = affine[:3, 3] + [side.stop for side in box] + _MARGIN_MM
    shape = tuple(np.ceil((high - low) / spacing).astype(int).tolist())
    to_affine = np.diag([spacing, spacing, spacing, 1.0])
    to_affine[:3, 3] = low
    everywhere = np.ones(data.shape, bool)
    image = resample_image(data, everywhere, affine, to_affine, shape)[0]
    share = resample_image(
        (data > BRAIN_T1).astype(np.float32), everywhere, affine, to_affine, shape
    )[0]
    brain = ndimage.binary_fill_holes(share > 0.5)
    away = ndimage.distance_transform_edt(~brain, spacing)
    shell = np.where(away < _SKULL_MM, _SKULL, np.where(away < _SCALP_MM, _SCALP, 0))
    head = np.where(brain, image, shell).astype(np.float32)
    height = low[2] + spacing * np.arange(shape[2])
    compared = brain | ((away < _COMPARED_MM) & (height > _BASE_MM))
    return Template(Series(head, to_affine), np.where(brain, 1, share).astype(np.float32), compared)


@lru_cache(maxsize=1)
def _brain() -> tuple[np.ndarray, np.ndarray, tuple[slice, ...]]:
    """The T1 map at 1 mm, its affine and the box of the brain."""
    image = mni_map("t1")
    data = np.asarray(image.dataobj, np.float32)
    (box,) = ndimage.find_objects((data > BRAIN_T1).astype(np.int8))
    return data, np.asarray(image.affine, np.float64), box
