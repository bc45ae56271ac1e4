"""Resection: most of the core replaced by a cavity that opens to the surface of the brain."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import Grid, smooth_step
from gliomoe.data_shards.phantom.tumour.structure import Noises, inside_mm

_TAKEN = (0.6, 0.9)
"""Share of the core that is removed."""
_NODULE_MM = 6.0
"""How far into the core a residual reaches from the wall."""
_BEYOND_MM = 0.8
"""What is cut around the core."""
_CORRIDOR = 0.45
"""Half-width of the way in, over the radius of the core."""
_SMOOTH_MM = 1.8
_MM_A_UNIT = np.float32(4.0)
"""Over which the noise that places residuals changes by 1."""
_SHELL_MM = 4.0
"""A voxel is on the surface of the brain above this depth."""


@dataclass(frozen=True)
class Corridor:
    """The way from the surface to the middle of a tumour, mm."""

    start: np.ndarray
    end: np.ndarray
    half_width: float

    def inside_mm(self, points: np.ndarray) -> np.ndarray:
        """Depth of points [3, ...] within the corridor; negative outside."""
        return np.float32(self.half_width) - _distance_to_line(points, self.start, self.end)


def find_corridor(core: np.ndarray, anatomy: Anatomy, depth: np.ndarray) -> Corridor:
    """The shortest way in.

    Args:
        core: [D, H, W] bool on the model grid.
        anatomy: The brain on the model grid.
        depth: [D, H, W] mm below the surface of the brain.
    """
    grid = anatomy.grid
    centre = np.array([axis[core].mean() for axis in grid.points()], np.float32)
    radius = (3 * core.sum() * grid.spacing**3 / (4 * np.pi)) ** (1 / 3)
    return Corridor(centre, _entry(centre, anatomy, depth), _CORRIDOR * float(radius))


def cut_cavity(
    behind: np.ndarray, grid: Grid, way: Corridor, noises: Noises, rng: np.random.Generator
) -> np.ndarray:
    """The cavity of a resection.

    Args:
        behind: [D, H, W] mm behind the border of the core, on the detail grid.
        grid: The detail grid.
        way: How it was reached.
        noises: Unevenness.
        rng: Source of the extent.

    Returns:
        [D, H, W] float32 membership on the detail grid.
    """
    core = behind > 0
    # What is left are nodules at the wall; a thin shell all around would not be left on purpose.
    left = noises.patch - inside_mm(core, grid.spacing) / np.float32(_NODULE_MM)
    bound = float(np.quantile(left[core], rng.uniform(*_TAKEN)))
    cut = np.minimum(_MM_A_UNIT * (bound - left), behind + np.float32(_BEYOND_MM))
    corridor = way.inside_mm(grid.points()) + np.clip(noises.medium, -2, 2)
    # A scalpel leaves smoother walls than a tumour.
    wall = ndimage.gaussian_filter(np.maximum(cut, corridor), _SMOOTH_MM / grid.spacing)
    return smooth_step(wall, -0.8, 0.8)


def _entry(centre: np.ndarray, anatomy: Anatomy, depth: np.ndarray) -> np.ndarray:
    """The nearest place on the convexity: not the base and not between the hemispheres."""
    x, _, z = anatomy.position
    surface = anatomy.brain & (depth < _SHELL_MM)
    convexity = surface & ((np.abs(x) > 25) | (z > 45)) & (z > -35)
    points = anatomy.grid.points()[:, convexity]
    # A little beyond, so that the way is open at its end.
    entry = points[:, ((points - centre[:, None]) ** 2).sum(0).argmin()]
    return (centre + (entry - centre) * 1.3).astype(np.float32)


def _distance_to_line(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of points [3, ...] to the line between two places, mm."""
    along = end - start
    offsets = [points[axis] - start[axis] for axis in range(3)]
    place = sum(along[axis] * offsets[axis] for axis in range(3)) / np.float32((along**2).sum())
    place = np.clip(place, 0, 1)
    return np.sqrt(sum((offsets[axis] - along[axis] * place) ** 2 for axis in range(3)))
