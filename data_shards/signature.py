"""What a scan looks like in 128 bytes: the same scan is known again when it was changed in form.

A signature survives re-orientation (axes are along R, A, S before), cropping of background (the
scan is placed by the centre of its tissue), scaling of intensities (robust range) and resampling
(taken in millimetres, from detail of 6 mm and coarser). Detail coarser than about 15 mm is left
out: it is what all heads share.

Notable: smoothing is done in whole numbers, which no order of summation changes, so the same scan
gives the same bytes on any number of threads.
"""

from functools import cache

import numpy as np
from scipy import ndimage

SIZE = 128
"""Whole numbers in a signature, one byte each."""

_PITCH = 6.0
"""mm between the points at which a scan is looked at."""

_REACH = (84.0, 102.0, 90.0)
"""mm from the centre to the last point, along R, A, S: a head without its neck."""

_FINE = 3.0
_COARSE = 6.0
"""Detail between these two widths (mm, standard deviation of a Gaussian) counts."""

_LEVELS = 127
_WEIGHT = 63
"""Whole numbers for intensity and for the peak of the Gaussian."""

_STEPS = 1000.0
"""Whole numbers for one robust range of intensity in the detail."""


def signature(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The signature of one preprocessed volume.

    Args:
        volume: [D, H, W] float32 along R, A, S, background 0.
        spacing: mm along each axis.

    Returns:
        [SIZE] int8; all 0 if the volume shows no detail.
    """
    detail = _detail(volume, spacing)
    code = _directions() @ detail
    length = np.sqrt((code * code).mean())
    if not length:
        return np.zeros(SIZE, np.int8)
    return np.clip(np.rint(code * (32 / length)), -127, 127).astype(np.int8)


def _detail(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """[points] float64 whole numbers: fine minus coarse appearance in tissue, 0 elsewhere."""
    tissue = volume != 0
    low, high = np.percentile(volume[tissue], (1, 99))
    scaled = np.clip((volume - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    levels = np.where(tissue, np.rint(scaled * (2 * _LEVELS) - _LEVELS), 0.0)
    views = [
        _view(np.bincount(np.nonzero(tissue)[axis], minlength=side), step, reach)
        for axis, (side, step, reach) in enumerate(zip(volume.shape, spacing, _REACH, strict=True))
    ]
    mass = float(np.prod([view.sum(1).max() for view in views]))
    total, share = (_seen(array, views) / mass for array in (levels, tissue.astype(np.float64)))
    width = np.sqrt(_COARSE**2 - _FINE**2) / _PITCH
    wide_total, wide_share = (
        ndimage.gaussian_filter(array, width, mode="constant", truncate=3)
        for array in (total, share)
    )
    inside = share >= 0.5
    fine = np.divide(total, share, out=np.zeros_like(total), where=inside)
    coarse = np.divide(wide_total, wide_share, out=np.zeros_like(total), where=inside)
    return np.rint((fine - coarse) * (_STEPS / (2 * _LEVELS))).ravel()


def _view(tissue: np.ndarray, step: float, reach: float) -> np.ndarray:
    """[points, voxels] whole numbers: a Gaussian around each point of one axis.

    Args:
        tissue: [voxels], tissue in each plane across the axis.
        step: mm from voxel to voxel.
        reach: mm from the centre to the last point.
    """
    voxels = np.arange(len(tissue))
    centre = (voxels * tissue).sum() / tissue.sum()
    points = np.arange(-reach, reach + _PITCH / 2, _PITCH)
    away = points[:, None] - (voxels - centre) * step
    return np.rint(_WEIGHT * np.exp(-0.5 * (away / _FINE) ** 2))


def _seen(array: np.ndarray, views: list[np.ndarray]) -> np.ndarray:
    """[points along D, H, W]: an array smoothed and taken at the points; exact in whole numbers."""
    for view in views:  # each goes from the front to the back, so the axes end as they began
        array = np.tensordot(array, view, (0, 1))
    return array


@cache
def _directions() -> np.ndarray:
    """[SIZE, points] float64 of +1 and -1, the same for ever: onto these the detail is projected.

    Projections on random directions keep angles (Johnson and Lindenstrauss, 1984).
    """
    points = int(np.prod([2 * reach / _PITCH + 1 for reach in _REACH]))
    words = np.random.Philox(key=0).random_raw(-(-SIZE * points // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8))[: SIZE * points]
    return bits.reshape(SIZE, points) * 2.0 - 1.0
