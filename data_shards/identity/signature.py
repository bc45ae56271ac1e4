"""What a scan looks like in 128 bytes: the same scan is known again when it was changed in form.

A signature survives re-orientation (axes are along R, A, S before), cropping of background (the
scan is placed by its centre of brightness), scaling of intensities (measured by the median) and
resampling (taken in millimetres). Coarse detail is left out: it is what all heads share.

Notable: what is dark beside the median counts little and the outermost millimetres not at all,
because there resampling mixes tissue with air. Smoothing is done in whole numbers, which no order
of summation changes, so the same scan gives the same bytes on any number of threads.
"""

from functools import cache

import numpy as np

SIZE = 128
"""Bytes of a signature."""

_NUMBERS = 2 * SIZE
"""Whole numbers from -7 to 7 in a signature, two in a byte."""

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

_DARK = (0.5, 0.8)
"""Shares of the median intensity between which a voxel comes to count."""

_INSIDE = (0.6, 1.0)
"""Shares of tissue around a point between which it comes to count."""

_LEAST = 1000
"""Points in tissue, 216 ml, below which too little is seen to tell scans apart."""

_CLIP = 2.0
"""Standard deviations at which detail is cut off, such as that of vessels."""

_SPREAD = 2.8
"""Standard deviation of the whole numbers."""

_STEPS = 1000.0
"""Whole numbers for a standard deviation of detail."""


def signature(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The signature of one preprocessed volume.

    Args:
        volume: [D, H, W] float32 along R, A, S, background 0.
        spacing: mm along each axis.

    Returns:
        [SIZE] uint8; all 0 if the volume shows too little.
    """
    numbers = _directions() @ _detail(volume, spacing)
    if length := np.sqrt((numbers * numbers).mean()):
        numbers = np.clip(np.rint(numbers * (_SPREAD / length)), -7, 7)
    halves = numbers.astype(np.int8).view(np.uint8) & 15
    return halves[0::2] << 4 | halves[1::2]


def unpack(signatures: np.ndarray) -> np.ndarray:
    """The whole numbers of signatures, whose cosine is the likeness of two scans.

    Args:
        signatures: [n, SIZE] uint8.

    Returns:
        [n, 2 * SIZE] float32.
    """
    halves = np.stack([signatures >> 4, signatures & 15], -1).reshape(len(signatures), _NUMBERS)
    return (halves ^ 8).astype(np.float32) - 8


def _detail(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """[points] float64 whole numbers: fine minus coarse appearance in tissue, 0 elsewhere."""
    from scipy import ndimage  # whoever signs nothing, such as an objective, does without

    bright = np.abs(volume)
    median = float(np.median(bright[volume != 0]))
    weight = np.rint(_LEVELS * _ramp(bright / median, *_DARK))
    low, high = np.percentile(volume[weight > 0], (0.5, 99.5))
    shown = np.rint(_LEVELS * (2 * _ramp(volume, low, high) - 1))
    views = [
        _view(profile, step, reach)
        for profile, step, reach in zip(
            _profiles(np.rint(_LEVELS * np.minimum(bright / (2 * median), 1))),
            spacing,
            _REACH,
            strict=True,
        )
    ]
    mass = _LEVELS * float(np.prod([view.sum(1).max() for view in views]))
    total, share = (_seen(array, views) / mass for array in (shown * weight, weight))
    width = np.sqrt(_COARSE**2 - _FINE**2) / _PITCH
    wide_total, wide_share = (
        ndimage.gaussian_filter(array, width, mode="constant", truncate=3)
        for array in (total, share)
    )
    inside = share > _INSIDE[0]
    if inside.sum() < _LEAST:
        return np.zeros(share.size)
    fine = np.divide(total, share, out=np.zeros_like(total), where=inside)
    coarse = np.divide(wide_total, wide_share, out=np.zeros_like(total), where=inside)
    detail = (fine - coarse) * _ramp(share, *_INSIDE)
    spread = float(detail[inside].std()) or 1.0
    return np.rint(_STEPS * np.clip(detail / spread, -_CLIP, _CLIP)).ravel()


def _ramp(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high` on."""
    return np.clip((array - low) / (high - low), 0, 1) if low < high else np.zeros_like(array)


def _profiles(array: np.ndarray) -> list[np.ndarray]:
    """Sums of a volume across each of its axes."""
    return [array.sum(axis=others, dtype=np.float64) for others in ((1, 2), (0, 2), (0, 1))]


def _view(profile: np.ndarray, step: float, reach: float) -> np.ndarray:
    """[points, voxels] whole numbers: a Gaussian around each point of one axis.

    Args:
        profile: [voxels], brightness of each plane across the axis; its centre is point 0.
        step: mm from voxel to voxel.
        reach: mm from the centre to the last point.
    """
    voxels = np.arange(len(profile))
    centre = (voxels * profile).sum() / profile.sum()
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
    """[_NUMBERS, points] float64 of +1 and -1, the same for ever, onto which detail is projected.

    Projections on random directions keep angles (Johnson and Lindenstrauss, 1984).
    """
    points = int(np.prod([2 * reach / _PITCH + 1 for reach in _REACH]))
    words = np.random.Philox(key=0).random_raw(-(-_NUMBERS * points // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8))[: _NUMBERS * points]
    return bits.reshape(_NUMBERS, points) * 2.0 - 1.0
