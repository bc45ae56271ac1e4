"""Random brains: the MNI152 tissue maps, deformed by a random diffeomorphism.

The deformation is the exponential of a stationary velocity field by scaling and squaring (Arsigny
et al., MICCAI 2006): it neither folds nor tears. Its field is not mirrored, so that left and right
differ, and it holds a part that widens or narrows the ventricles.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.mni import BRAIN_T1, mni_map
from gliomoe.data_shards.phantom.grid import MODEL_GRID, WARP_GRID, Grid, smooth_noise

_SQUARINGS = 5
_COARSE_WARP = (24.0, 3.0)
_FINE_WARP = (10.0, 1.2)
"""Smoothness and root-mean-square velocity, mm: lobes and gyri."""

_FWHM_PER_SIGMA = 2.355
_MARGIN = 12
"""Voxels around the brain, more than any blur reaches."""


@dataclass(frozen=True)
class HeadShape:
    """What makes one brain differ from the template."""

    displacement: np.ndarray
    """[3, D, H, W] mm on the model grid: the template is read at x + displacement(x)."""
    atrophy: float
    """0 young, towards 1 wide sulci."""


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


def draw_head_shape(rng: np.random.Generator, age: float) -> HeadShape:
    """A random shape; ventricles and sulci widen with age.

    Args:
        rng: Source of every draw.
        age: Years.
    """
    ageing = np.clip((age - 25) / 55, 0, 1)
    parts = [
        np.float32(amplitude) * smooth_noise(rng, scale, channels=3, grid=WARP_GRID)
        for scale, amplitude in (_COARSE_WARP, _FINE_WARP)
    ]
    widening = np.float32(rng.normal(4.0 * ageing, 1.5))
    velocity = parts[0] + parts[1] + widening * _ventricle_pull()
    displacement = WARP_GRID.resample(_exponential(velocity), MODEL_GRID)
    displacement += _random_affine(rng, MODEL_GRID.points())
    atrophy = float(np.clip(0.1 + 0.35 * ageing + rng.normal(0, 0.08), 0, 0.6))
    return HeadShape(displacement, atrophy)


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
    template, maps = tissue_maps(max(1.0, grid.spacing))
    gm, wm, inside = template.sample(maps, position)
    brain = inside > 0.5
    # The maps are shares of the voxel; at the brain's edge they become shares of its tissue.
    solid = np.minimum(gm + wm, inside) / np.maximum(inside, 1e-3) * brain
    csf = np.where(brain, 1 - solid, 0) ** np.float32(1 - shape.atrophy)
    keep = (1 - csf) * brain / np.maximum(gm + wm, 1e-3)
    return Anatomy(grid, gm * keep, wm * keep, csf * brain, brain, position)


@lru_cache(maxsize=2)
def tissue_maps(spacing: float) -> tuple[Grid, np.ndarray]:
    """Grey matter, white matter and brain mask of MNI152, blurred for a voxel size.

    Args:
        spacing: Voxel size in mm of the images to be rendered.

    Returns:
        The template's grid at 1 mm and [3, D, H, W] float32 shares.
    """
    grid, maps = _template()
    sigma = np.sqrt(max(spacing**2 - grid.spacing**2, 0.0)) / _FWHM_PER_SIGMA
    return grid, np.stack([ndimage.gaussian_filter(field, sigma) for field in maps])


@lru_cache(maxsize=1)
def _template() -> tuple[Grid, np.ndarray]:
    """The maps that nilearn ships, [3, D, H, W], cut to the brain."""
    t1, gm, wm = (mni_map(name) for name in ("t1", "gm", "wm"))
    brain = ndimage.binary_fill_holes(np.asarray(t1.dataobj) > BRAIN_T1)
    box = ndimage.find_objects(brain.astype(np.int8))[0]
    maps = np.stack([np.asarray(image.dataobj)[box] / np.float32(255) for image in (gm, wm)])
    brain = brain[box].astype(np.float32)
    maps = np.stack([*(maps * brain), brain])
    maps = np.pad(maps, [(0, 0), *[(_MARGIN, _MARGIN)] * 3])
    origin = t1.affine[:3, 3] + [side.start - _MARGIN for side in box]
    return Grid(maps.shape[1:], 1.0, tuple(float(place) for place in origin)), maps


@lru_cache(maxsize=1)
def _ventricle_pull() -> np.ndarray:
    """Velocity on the warp grid, at most 1 mm, that reads the template nearer to its ventricles."""
    template, maps = tissue_maps(WARP_GRID.spacing)
    gm, wm, inside = template.sample(maps, WARP_GRID.points())
    depth = ndimage.distance_transform_edt(inside > 0.5) * WARP_GRID.spacing
    ventricles = np.where(depth > 20, np.clip(1 - gm - wm, 0, 1), 0)
    slope = np.stack(np.gradient(ndimage.gaussian_filter(ventricles, 1.0).astype(np.float32)))
    return slope / np.sqrt((slope**2).sum(0)).max()


def _exponential(velocity: np.ndarray) -> np.ndarray:
    """Displacement of the flow along a stationary velocity, by scaling and squaring."""
    points = WARP_GRID.points()
    displacement = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        displacement = displacement + WARP_GRID.sample(displacement, points + displacement)
    return displacement


def _random_affine(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Displacement of a random size, proportion, tilt and position of the head."""
    scale = 1 + rng.normal(0, 0.025) + rng.normal(0, 0.015, 3)
    turn = np.cross(np.eye(3), np.deg2rad(rng.normal(0, 3, 3)))
    matrix = (np.diag(1 / scale) + turn - np.eye(3)).astype(np.float32)
    shift = rng.normal(0, 2, 3).astype(np.float32)
    moved = [sum(row[axis] * points[axis] for axis in range(3)) for row in matrix]
    return (np.stack(moved) + shift[:, None, None, None]).astype(np.float32)
