"""K-space along one axis: resolution, ringing and ghosts.

Gibbs ringing is what a cut of k-space leaves of an edge. Ghosts are what a periodic motion leaves:
line k of k-space, acquired while the head is displaced by d(k), gets the phase -2 pi k d(k) / FOV,
and the head appears again at multiples of (number of lines) / (lines in a period) voxels (Wood and
Henkelman, Med Phys 1985).
"""

import numpy as np
from scipy import fft


def encode(
    image: np.ndarray,
    axis: int,
    count: int,
    kept: float = 1.0,
    motion: float = 0.0,
    period: float = 16.0,
) -> np.ndarray:
    """An image as k-space of limited extent along one axis gives it.

    The motion is a cosine that is the same on both sides of k-space, which keeps the image real
    and so costs half.

    Args:
        image: [..., N, ...] float32.
        axis: Which.
        count: Voxels after it, at most N, over the same field of view; the first stays in place.
        kept: Share of these lines that is acquired, symmetric; the rest is 0.
        motion: Amplitude of the head's motion along the axis, in voxels after it.
        period: Lines in one period of motion.

    Returns:
        [..., count, ...] float32.
    """
    lines = fft.rfft(image, axis=axis)
    line = np.arange(count // 2 + 1)
    lines = np.take(lines, line, axis) if count < image.shape[axis] else lines
    factor = (line <= kept * count / 2) * (count / image.shape[axis])
    displacement = motion * np.cos(2 * np.pi * line / period)
    factor = factor * np.exp(-2j * np.pi * line * displacement / count)
    shape = [1] * image.ndim
    shape[axis] = len(line)
    lines *= factor.astype(np.complex64).reshape(shape)
    return fft.irfft(lines, count, axis=axis, overwrite_x=True)
