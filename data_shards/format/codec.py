"""Voxels as Blosc2 frames: zstd + byte shuffle, blocks of 32³, decoded in place block by block.

Notable: an intensity is `code * scale + offset`, and intensity 0 (the background) is always met
exactly. Frames are made with one thread, because Blosc2 orders blocks by completion otherwise and
the same voxels would give other bytes; parallelism is over studies.
"""

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np

BLOCK = 32
CHUNK = 64
LEVELS = 4096
"""Codes over the robust range of intensities that are no integers; noise is far coarser."""

_CODES = np.iinfo(np.int16)


@cache
def _blosc2() -> ModuleType:
    """Blosc2, imported with the first frame: objectives and masks on made-up studies need none."""
    import blosc2

    # Also holds for frames that are read: a crop is too small to share out, and the workers of a
    # loader must not multiply threads.
    blosc2.set_nthreads(1)
    return blosc2


@dataclass(frozen=True)
class Quantised:
    """A volume as int16 codes."""

    codes: np.ndarray
    """[D, H, W] int16."""
    scale: float
    offset: float

    @property
    def background(self) -> int:
        """The code of intensity 0."""
        return background_code(self.scale, self.offset)


def background_code(scale: float, offset: float) -> int:
    """The code of intensity 0."""
    return round(-offset / scale)


def quantise(volume: np.ndarray, low: float, high: float) -> Quantised:
    """Intensities as int16 codes with an error of at most half a step.

    Integers that span less than 65,536 are kept exactly; otherwise the step is 1/4096 of the
    robust range, or as much as the extreme intensities need.

    Args:
        volume: [D, H, W] float32, finite.
        low: Lower robust percentile of the foreground.
        high: Upper robust percentile of the foreground.
    """
    least, most = min(0.0, float(volume.min())), max(0.0, float(volume.max()))
    if most - least <= _CODES.max - _CODES.min and np.array_equal(volume, np.rint(volume)):
        fits = least >= _CODES.min and most <= _CODES.max
        offset = 0.0 if fits else least - _CODES.min
        return Quantised((volume - np.float32(offset)).astype(np.int16), 1.0, offset)
    scale = max((high - low) / LEVELS, -least / -_CODES.min, most / _CODES.max)
    return Quantised(np.rint(volume / scale).astype(np.int16), scale, 0.0)


def encode(voxels: np.ndarray) -> bytes:
    """A Blosc2 n-D frame; the same voxels give the same bytes.

    Args:
        voxels: [D, H, W] int16 or uint8.
    """
    blosc2 = _blosc2()
    sides = tuple(min(CHUNK, -(-side // BLOCK) * BLOCK) for side in voxels.shape)
    array = blosc2.asarray(
        np.ascontiguousarray(voxels),
        chunks=sides,
        blocks=(BLOCK,) * 3,
        cparams=blosc2.CParams(
            codec=blosc2.Codec.ZSTD,
            clevel=5,
            nthreads=1,
            filters=[blosc2.Filter.SHUFFLE],
            filters_meta=[0],
        ),
    )
    return array.to_cframe()


class Frame:
    """A Blosc2 n-D frame that stays where it is, such as inside a memory-mapped tar.

    Args:
        buffer: The frame's bytes; they must outlive this object.

    Raises:
        RuntimeError, ValueError: If the bytes are no frame; the caller knows its name.
    """

    def __init__(self, buffer: memoryview | bytes) -> None:
        self._array = _blosc2().ndarray_from_cframe(buffer, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """D, H, W."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype:
        """int16 for intensities, uint8 for labels."""
        return self._array.dtype

    def read_into(self, out: np.ndarray, start: tuple[int, ...], stop: tuple[int, ...]) -> None:
        """The voxels from `start` to before `stop`, decoding only the blocks that these touch.

        Args:
            out: Array of that size and of `dtype` to fill; fastest where it is contiguous.
            start: First voxel.
            stop: The one after the last.
        """
        if not out.size:
            return
        if out.flags.c_contiguous:
            self._array.get_slice_numpy(out, (start, stop))
        else:
            out[...] = self._array.get_slice_numpy(np.empty(out.shape, out.dtype), (start, stop))
