"""Intensities as networks take them: robust range of the tissue to 0–1, background exactly 0."""

import numpy as np

from gliomoe.data_shards.format.codec import background_code

PERCENTILES = (0.5, 99.5)
"""Of the foreground of one volume; they become 0 and 1."""

FLOOR = 1e-3
"""Least value of tissue, so that the darkest of it is still told from background."""

CEILING = 2.0
"""Greatest value: bright enhancement keeps its contrast, a stray spike does not set the scale."""

_SLAB = 4
"""Planes that are normalised at a time."""


def robust_range(volume: np.ndarray) -> tuple[float, float]:
    """The `PERCENTILES` of the voxels that are not 0.

    Returns:
        Low and high; equal if there is no contrast, 0 and 0 if there is no foreground.
    """
    foreground = volume[volume != 0]
    if not foreground.size:
        return 0.0, 0.0
    low, high = np.percentile(foreground, PERCENTILES)
    return float(low), float(high)


def normalise(
    codes: np.ndarray, scale: float, offset: float, low: float, high: float, out: np.ndarray
) -> None:
    """Decode and normalise in one go.

    Args:
        codes: [D, H, W] int16; intensity is `code * scale + offset`.
        scale: Intensity of one code.
        offset: Intensity of code 0.
        low: Intensity that becomes 0.
        high: Intensity that becomes 1.
        out: [D, H, W] float32 to fill: 0 where the intensity is 0, otherwise `FLOOR` to `CEILING`.
    """
    width = high - low
    factor, shift = np.float32(scale / width), np.float32((offset - low) / width)
    background = background_code(scale, offset)
    for first in range(0, len(codes), _SLAB):  # what a slab needs stays in the processor's cache
        piece, filled = codes[first : first + _SLAB], out[first : first + _SLAB]
        np.multiply(piece, factor, out=filled, casting="unsafe")
        np.add(filled, shift, out=filled)
        np.clip(filled, FLOOR, CEILING, out=filled)
        # Not by a boolean index, which takes four times as long where background is scattered.
        np.multiply(filled, piece != background, out=filled)
