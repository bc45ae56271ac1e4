"""Satellite foci: small tumours in white matter apart from the core.

They are kept as balls, not as fields, since they are smaller than what the grids resolve.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.grid import Grid

DIAMETER_MM = (3.0, 5.0)
DISTANCE_MM = (8.0, 40.0)
"""From the core's border."""
_APART_MM = 8.0
_FADING_MM = 12.0
"""Over which foci become rarer."""
_WHITE = 0.7
"""White matter in the voxel of a focus, at least."""


@dataclass(frozen=True)
class Satellite:
    """One focus."""

    centre: tuple[float, float, float]
    """mm."""
    diameter: float
    """mm."""


def place_satellites(
    count: int, core: np.ndarray, wm: np.ndarray, grid: Grid, rng: np.random.Generator
) -> tuple[Satellite, ...]:
    """Foci in white matter around a core.

    Args:
        count: How many; fewer where there is no room.
        core: [D, H, W] bool.
        wm: [D, H, W] share of white matter.
        grid: Of both.
        rng: Source of places and sizes.
    """
    away = ndimage.distance_transform_edt(~core) * grid.spacing
    near, far = DISTANCE_MM
    allowed = (wm > _WHITE) & (away > near + DIAMETER_MM[1] / 2) & (away < far)
    weight = np.exp(-away / _FADING_MM) * allowed
    points = grid.points()
    found: list[Satellite] = []
    for _ in range(count):
        total = np.cumsum(weight.ravel())
        if not total[-1] > 0:
            break
        place = np.unravel_index(np.searchsorted(total, rng.random() * total[-1]), core.shape)
        centre = points[(slice(None), *place)]
        found.append(
            Satellite(
                (float(centre[0]), float(centre[1]), float(centre[2])),
                float(rng.uniform(*DIAMETER_MM)),
            )
        )
        apart = ((points - centre[:, None, None, None]) ** 2).sum(0) > _APART_MM**2
        weight *= apart
    return tuple(found)


def paint(satellite: Satellite, grid: Grid) -> tuple[tuple[slice, ...], np.ndarray]:
    """Share of each voxel that a focus fills.

    Returns:
        The box of the grid that holds it, and [D, H, W] float32 there.
    """
    radius = satellite.diameter / 2
    parts = max(2, int(np.ceil(4 * grid.spacing / radius)))
    inner = (np.arange(parts) + 0.5) / parts - 0.5
    box, squares = [], []
    for axis in range(3):
        place = (satellite.centre[axis] - grid.origin[axis]) / grid.spacing
        reach = radius / grid.spacing + 0.5
        start = max(int(np.floor(place - reach)), 0)
        stop = min(int(np.ceil(place + reach)) + 1, grid.shape[axis])
        lines = (np.arange(start, stop)[:, None] + inner - place) * grid.spacing
        box.append(slice(start, stop))
        squares.append(lines.ravel() ** 2)
    far = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    shape = [side for axis in box for side in (axis.stop - axis.start, parts)]
    share = (far <= radius**2).reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)
    return tuple(box), share
