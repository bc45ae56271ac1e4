"""Random brains: the MNI152 tissue maps, deformed by a random diffeomorphism.

The deformation is the exponential of a stationary velocity field by scaling and squaring (Arsigny
et al., MICCAI 2006): it neither folds nor tears. Its field is not mirrored, so that left and right
differ, and it holds a part that widens or narrows the ventricles.
"""

import logging
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, smooth_noise

_SQUARINGS = 5
_COARSE_WARP = (24.0, 3.0)
_FINE_WARP = (10.0, 1.2)
"""Smoothness and root-mean-square velocity, mm: lobes and gyri."""

_FWHM_PER_SIGMA = 2.355


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
    velocity = sum(
        np.float32(amplitude) * smooth_noise(rng, scale, channels=3)
        for scale, amplitude in (_COARSE_WARP, _FINE_WARP)
    )
    widening = np.float32(rng.normal(4.0 * ageing, 1.5))
    velocity += widening * _ventricle_pull()
    points = MODEL_GRID.points()
    displacement = _exponential(velocity, points) + _random_affine(rng, points)
    atrophy = float(np.clip(0.1 + 0.35 * ageing + rng.normal(0, 0.08), 0, 0.6))
    return HeadShape(displacement.astype(np.float32), atrophy)


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
    """The maps as nilearn ships them; nothing is downloaded."""
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # announces its threads otherwise
    from nilearn import datasets  # seconds to import

    images = [
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    ]
    maps = np.stack([np.asarray(image.dataobj, np.float32) for image in images])
    maps[2] = ndimage.binary_fill_holes(maps[2] > 0.5)
    maps[:2] *= maps[2]
    x, y, z = images[0].affine[:3, 3]
    return Grid(maps.shape[1:], 1.0, (float(x), float(y), float(z))), maps


@lru_cache(maxsize=1)
def _ventricle_pull() -> np.ndarray:
    """Velocity, [3, D, H, W] mm and at most 1, that reads the template nearer to its ventricles."""
    template, maps = tissue_maps(MODEL_GRID.spacing)
    gm, wm, inside = template.sample(maps, MODEL_GRID.points())
    depth = ndimage.distance_transform_edt(inside > 0.5) * MODEL_GRID.spacing
    ventricles = np.where(depth > 20, np.clip(1 - gm - wm, 0, 1), 0)
    slope = np.stack(np.gradient(ndimage.gaussian_filter(ventricles, 2.0).astype(np.float32)))
    return slope / np.sqrt((slope**2).sum(0)).max()


def _exponential(velocity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Displacement of the flow along a stationary velocity, by scaling and squaring."""
    displacement = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        displacement = displacement + MODEL_GRID.sample(displacement, points + displacement)
    return displacement


def _random_affine(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Displacement of a random size, proportion, tilt and position of the head."""
    scale = 1 + rng.normal(0, 0.025) + rng.normal(0, 0.015, 3)
    turn = np.cross(np.eye(3), np.deg2rad(rng.normal(0, 3, 3)))
    matrix = (np.diag(1 / scale) + turn - np.eye(3)).astype(np.float32)
    shift = rng.normal(0, 2, 3).astype(np.float32)
    moved = [sum(row[axis] * points[axis] for axis in range(3)) for row in matrix]
    return np.stack(moved) + shift[:, None, None, None]
