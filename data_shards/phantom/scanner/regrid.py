"""Series and segmentations between the native grid of a series and the grid of the body."""

import numpy as np

from gliomoe.data_shards.box import bounding_box
from gliomoe.data_shards.phantom.grid import Grid, interpolate
from gliomoe.data_shards.phantom.scanner.acquire import Scan
from gliomoe.data_shards.phantom.scanner.geometry import sample


def onto_grid(scan: Scan, grid: Grid, brain: np.ndarray) -> np.ndarray:
    """A series of the preprocessed form on the common grid, stripped to the brain.

    It is put where its affine says, so that what registration left stays in it.

    Args:
        scan: A series on the body's axes.
        grid: The common grid.
        brain: [D, H, W] bool on it.

    Returns:
        [D, H, W] int16, 0 outside the brain and at least 1 in it.

    Raises:
        ValueError: If the series is in raw form, turned to the grid.
    """
    if not scan.geometry.aligned:
        raise ValueError("a series in raw form does not lie on the axes of the grid")
    image = scan.image.astype(np.float32)
    for axis in range(3):
        start = (grid.origin[axis] - scan.affine[axis, 3]) / scan.geometry.spacing[axis]
        step = grid.spacing / scan.geometry.spacing[axis]
        places = start + step * np.arange(grid.shape[axis])
        if not np.array_equal(places, np.arange(image.shape[axis])):
            image = interpolate(image, places, axis - 3)
    stored = np.clip(np.rint(image), 1, 32767).astype(np.int16)
    stored[~brain] = 0
    return stored


def labels_onto(scan: Scan, seg: np.ndarray, grid: Grid) -> np.ndarray:
    """A segmentation in the voxels of a series, each with the label that fills most of it.

    Args:
        scan: The series; it counts where the head was, not where its file says.
        seg: [D, H, W] uint8 labels on `grid`, 0 background, also in its outermost voxels.
        grid: The body's.

    Returns:
        uint8 of the shape of the series' image, in stored order.
    """
    best = np.zeros(scan.geometry.shape, np.uint8)
    box = bounding_box(seg[1:-1, 1:-1, 1:-1])
    if box:
        # A voxel of background around it, so that the label fades at the edge of the box.
        box = tuple(slice(side.start, side.stop + 2) for side in box)
        part = _part(grid, box)
        most = 1 - sample((seg[box] > 0).astype(np.float32), part, scan.geometry, [1, 1, 1])
        for label in np.unique(seg[seg > 0]):
            mask = (seg[box] == label).astype(np.float32)
            share = sample(mask, part, scan.geometry, [1, 1, 1])
            best[share > most] = label
            np.maximum(most, share, out=most)
    return scan.geometry.store(best)


def _part(grid: Grid, box: tuple[slice, ...]) -> Grid:
    """The grid of a box of another."""
    shape = tuple(side.stop - side.start for side in box)
    places = zip(grid.origin, box, strict=True)
    origin = tuple(start + grid.spacing * side.start for start, side in places)
    return Grid(shape, grid.spacing, origin)
