"""Random brains: the MNI152 tissue maps, deformed and folded anew for every subject."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.folding import FOLDING_GRID, fold, surface_maps
from gliomoe.data_shards.phantom.anatomy.shape import HeadShape, draw_head_shape
from gliomoe.data_shards.phantom.anatomy.template import individual_maps, tissue_maps
from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, smooth_step

__all__ = ["Anatomy", "HeadShape", "build_anatomy", "draw_head_shape", "tissue_maps"]

_NUCLEI = ((0.0, -8.0, 2.0), (38.0, 36.0, 24.0))
_STEM = ((0.0, -30.0, -40.0), (20.0, 22.0, 32.0))
"""Centre and axes, mm, of where grey and white matter lie mixed: deep nuclei and brain stem."""


@dataclass(frozen=True)
class Anatomy:
    """Tissue of one brain on one grid; fractions sum to 1 in the brain and are 0 outside."""

    grid: Grid
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    brain: np.ndarray
    """[D, H, W] bool."""
    position: np.ndarray
    """[3, D, H, W] mm, the place in the template: lobes and mid-line by coordinate."""


def build_anatomy(shape: HeadShape, grid: Grid, push: np.ndarray | None = None) -> Anatomy:
    """Tissue of a head on a grid.

    Args:
        shape: The head.
        grid: Where to render it.
        push: Mass effect, [3, D, H, W] mm on the model grid: tissue seen at x came from
            x - push(x). None for none.
    """
    displacement = shape.displacement
    if push is not None:
        origin = MODEL_GRID.points() - push
        displacement = MODEL_GRID.sample(shape.displacement, origin) - push
    position = grid.points() + MODEL_GRID.resample(displacement, grid)
    template, maps = individual_maps(max(1.0, grid.spacing))
    brain = _largest_part(template.sample(maps[0], position) > 0.5)
    places = position[:, brain]
    white, young, old = template.sample(maps[1:, :, :], places[:, :, None, None])[..., 0, 0]
    csf = young + np.float32(shape.atrophy) * (old - young)
    if shape.folding is None:
        distance = np.full(len(csf), np.inf, np.float32)
    else:
        distance = FOLDING_GRID.sample(shape.folding, places)
    surface = FOLDING_GRID.sample(surface_maps(), places[:, :, None, None])[..., 0, 0]
    sulcus, folded = fold(white, distance, surface, shape.atrophy, grid.spacing)
    mixed = np.maximum(_ellipsoid(places, *_NUCLEI), _ellipsoid(places, *_STEM))
    folded += mixed * (white - folded)
    csf += (1 - csf) * sulcus
    np.clip(csf, 0, 1, out=csf)
    wm = (1 - csf) * folded
    gm, wm, csf = (_within_brain(values, brain) for values in (1 - csf - wm, wm, csf))
    return Anatomy(grid, gm, wm, csf, brain, position)


def _ellipsoid(
    places: np.ndarray, centre: tuple[float, ...], axes: tuple[float, ...]
) -> np.ndarray:
    """Membership of an ellipsoid, [N], with a soft edge."""
    radius = sum(
        ((places[axis] - np.float32(centre[axis])) / np.float32(axes[axis])) ** 2
        for axis in range(3)
    )
    return smooth_step(radius, 1.1, 0.8)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """A mask without the islands that a threshold leaves at the base of the brain."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def _within_brain(values: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Values of the brain's voxels, [N], as a field, [D, H, W], 0 elsewhere."""
    field = np.zeros(brain.shape, np.float32)
    field[brain] = values
    return field
