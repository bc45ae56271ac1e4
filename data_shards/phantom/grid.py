"""Regular grids in MNI152 space, and fields that pass from one grid to another.

Everything about a subject (shape of the head, growth of a tumour) is computed on one coarse model
grid and only rendered at the spacing asked for, so that a subject is the same at every spacing.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FIELD_OF_VIEW_MM = (172.0, 208.0, 178.0)
CENTRE_MM = (0.0, -17.0, 5.0)
"""A box that holds the MNI152 brain with room for a larger or turned head."""

HEAD_MARGIN_MM = ((10.0, 10.0), (9.0, 27.0), (39.0, 9.0))
"""What a box with scalp, face and neck has more: left, right; back, front; below, above."""


@dataclass(frozen=True)
class Grid:
    """An isotropic, axis-aligned grid, RAS, in mm of MNI152 space."""

    shape: tuple[int, ...]
    spacing: float
    origin: tuple[float, ...]
    """Centre of the first voxel."""

    @property
    def affine(self) -> np.ndarray:
        """Voxel to world, 4 x 4."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = self.origin
        return affine

    def points(self) -> np.ndarray:
        """World coordinates of the voxel centres, [3, D, H, W] float32 mm."""
        points = np.empty((3, *self.shape), np.float32)
        for axis, (start, count) in enumerate(zip(self.origin, self.shape, strict=True)):
            line = start + self.spacing * np.arange(count, dtype=np.float32)
            points[axis] = np.expand_dims(line, [other for other in range(3) if other != axis])
        return points

    def sample(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Trilinear values of a field of this grid at any points.

        Args:
            field: [D, H, W] or [C, D, H, W] on this grid.
            points: [3, ...] mm. Outside the grid the edge's value holds.

        Returns:
            [...] or [C, ...] float32.
        """
        start = np.reshape(np.array(self.origin, np.float32), (3,) + (1,) * (points.ndim - 1))
        voxels = (points - start) / np.float32(self.spacing)
        channels = field if field.ndim == 4 else field[None]
        out = np.empty((len(channels), *points.shape[1:]), np.float32)
        for channel, values in zip(out, channels, strict=True):
            ndimage.map_coordinates(values, voxels, channel, order=1, mode="nearest")
        return out if field.ndim == 4 else out[0]

    def resample(self, field: np.ndarray, onto: "Grid") -> np.ndarray:
        """A field of this grid ([D, H, W] or [C, D, H, W]) on another grid, trilinear, float32."""
        if onto == self:
            return field
        for axis in range(3):
            start = (onto.origin[axis] - self.origin[axis]) / self.spacing
            places = start + onto.spacing / self.spacing * np.arange(onto.shape[axis])
            field = interpolate(field, places, axis - 3)
        return field


def brain_grid(spacing: float) -> Grid:
    """The grid over the field of view at a spacing in mm."""
    shape = tuple(int(np.ceil(side / spacing)) for side in FIELD_OF_VIEW_MM)
    origin = tuple(
        centre - spacing * (count - 1) / 2 for centre, count in zip(CENTRE_MM, shape, strict=True)
    )
    return Grid(shape, float(spacing), origin)


def head_grid(spacing: float) -> Grid:
    """`brain_grid` padded by whole voxels, so that scalp, face and neck fit in."""
    inner = brain_grid(spacing)
    before, after = np.transpose(head_padding(spacing)).tolist()
    shape = tuple(sum(counts) for counts in zip(before, inner.shape, after, strict=True))
    origin = tuple(
        start - count * spacing for start, count in zip(inner.origin, before, strict=True)
    )
    return Grid(shape, inner.spacing, origin)


def head_padding(spacing: float) -> list[tuple[int, int]]:
    """Voxels of `head_grid` before and after `brain_grid`, for every axis."""
    return [
        (int(np.ceil(before / spacing)), int(np.ceil(after / spacing)))
        for before, after in HEAD_MARGIN_MM
    ]


_SQUARINGS = 5

FWHM_PER_SIGMA = 2.355
"""Of a Gaussian: a voxel is taken for one of its width."""

MODEL_GRID = brain_grid(3.0)
"""Where a subject is computed."""

WARP_GRID = brain_grid(6.0)
"""Where what varies slowly is computed: deformations and bias fields."""


def interpolate(field: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear values at places (in voxels, held at the ends) along one axis, counted from the end.

    Axis by axis this is several times faster than `ndimage.zoom`.
    """
    last = field.shape[axis] - 1
    places = np.clip(places, 0, last)
    lower = np.minimum(places.astype(np.int64), last - 1)
    share = (places - lower).astype(np.float32).reshape((-1,) + (1,) * (-axis - 1))
    below, above = field.take(lower, axis), field.take(lower + 1, axis)
    above -= below
    above *= share
    above += below
    return above


def smooth_noise(
    rng: np.random.Generator, scale_mm: float, channels: int = 0, grid: Grid = MODEL_GRID
) -> np.ndarray:
    """Gaussian random field of unit variance.

    Args:
        rng: Source of the white noise.
        scale_mm: Standard deviation of the smoothing kernel.
        channels: Number of independent fields; 0 gives one without a channel axis.
        grid: Where the field lives.

    Returns:
        [D, H, W] or [C, D, H, W] float32.
    """
    sigma = scale_mm / grid.spacing
    white = rng.standard_normal((max(channels, 1), *grid.shape), np.float32)
    fields = np.stack([ndimage.gaussian_filter(field, sigma, mode="wrap") for field in white])
    fields /= fields.std(axis=(1, 2, 3), keepdims=True)
    return fields if channels else fields[0]


def flow(velocity: np.ndarray) -> np.ndarray:
    """Displacement of the flow along a stationary velocity for a unit of time.

    By scaling and squaring (Arsigny et al., MICCAI 2006): it neither folds nor tears.

    Args:
        velocity: [3, D, H, W] mm on the warp grid.

    Returns:
        [3, D, H, W] mm on the warp grid.
    """
    points = WARP_GRID.points()
    moved = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        moved = moved + WARP_GRID.sample(moved, points + moved)
    return moved


def smooth_step(field: np.ndarray, low: float, high: float) -> np.ndarray:
    """A field as a membership: 0 below `low`, 1 above `high`, linear between; float32."""
    return np.clip((field - np.float32(low)) / np.float32(high - low), 0, 1)
