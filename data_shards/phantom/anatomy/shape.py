"""The shape of one person's brain: a random diffeomorphism of the template.

The deformation is the exponential of a stationary velocity field by scaling and squaring (Arsigny
et al., MICCAI 2006): it neither folds nor tears. Beside random parts it holds the torque by which
left and right of every brain differ, and one that widens the ventricles with age.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.folding import draw_folding
from gliomoe.data_shards.phantom.anatomy.template import tissue_maps
from gliomoe.data_shards.phantom.grid import MODEL_GRID, WARP_GRID, flow, smooth_noise, smooth_step

_COARSE_WARP = (24.0, 2.0)
_FINE_WARP = (10.0, 1.2)
"""Smoothness and root-mean-square velocity, mm: lobes and gyri."""

_SIZE = (0.905, 0.025)
"""Mean and deviation of the length of a head in that of MNI152, which is larger than most: the mean
gives the 1380 ml within the skull of men and women (Matsumae et al., J Neurosurg 1996)."""

_TORQUE = (1.5, 1.0)
"""mm, mean and deviation of what the right front and the left back protrude, and are wider (LeMay,
Ann N Y Acad Sci 1976). The direction is published, the amount chosen so that it is seen in most."""

_VENTRICLES = 6.0
"""mm by which ventricles widen from 25 to 80 years."""

_LEFT_VENTRICLE = (0.12, 0.25)
"""Mean and deviation of how much wider, as a share, the left ventricle is drawn than the right."""


@dataclass(frozen=True)
class HeadShape:
    """What makes one brain differ from the template."""

    displacement: np.ndarray
    """[3, D, H, W] mm on the model grid: the template is read at x + displacement(x)."""
    atrophy: float
    """0 young, towards 1 wide sulci."""
    folding: np.ndarray | None = None
    """[D, H, W] mm on the folding grid, distance from the person's own sulci; None for none."""


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
    widening = rng.normal(_VENTRICLES * ageing, 1.5)
    velocity = parts[0] + parts[1] + widening * _ventricle_pull()
    velocity += asymmetry(rng.normal(*_TORQUE), 2.0 * rng.normal(*_LEFT_VENTRICLE))
    displacement = WARP_GRID.resample(flow(velocity.astype(np.float32)), MODEL_GRID)
    displacement += _random_affine(rng, MODEL_GRID.points())
    atrophy = float(np.clip(0.2 + 0.6 * ageing + rng.normal(0, 0.12), 0, 1))
    return HeadShape(displacement, atrophy, draw_folding(rng))


def asymmetry(torque: float, left_ventricle: float) -> np.ndarray:
    """What makes left and right differ in every brain.

    Args:
        torque: mm by which the right front and the left back protrude.
        left_ventricle: mm by which the left ventricle is widened and the right one narrowed.

    Returns:
        Velocity on the warp grid, [3, D, H, W] float32 mm.
    """
    x, y, _ = WARP_GRID.points()
    side = np.tanh(x / 25)
    velocity = np.zeros((3, *WARP_GRID.shape), np.float32)
    # Read from further back is pushed forwards, and read from nearer the mid-line is wider.
    velocity[1] = -torque * side
    front, back = smooth_step(y, 0, 50), smooth_step(y, -40, -90)
    velocity[0] = -0.5 * torque * (front * np.maximum(side, 0) + back * np.minimum(side, 0))
    velocity[0] += 0.5 * torque * (front * np.minimum(side, 0) + back * np.maximum(side, 0))
    return velocity - np.float32(left_ventricle) * side * _ventricle_pull()


@lru_cache(maxsize=1)
def _ventricle_pull() -> np.ndarray:
    """Velocity on the warp grid, at most 1 mm, that reads the template nearer to its ventricles."""
    template, maps = tissue_maps(WARP_GRID.spacing)
    gm, wm, inside = template.sample(maps, WARP_GRID.points())
    depth = ndimage.distance_transform_edt(inside > 0.5) * WARP_GRID.spacing
    ventricles = np.where(depth > 20, np.clip(1 - gm - wm, 0, 1), 0)
    slope = np.stack(np.gradient(ndimage.gaussian_filter(ventricles, 1.0).astype(np.float32)))
    return slope / np.sqrt((slope**2).sum(0)).max()


def _random_affine(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Displacement of a random size, proportion, tilt and position of the head."""
    scale = rng.normal(*_SIZE) + rng.normal(0, 0.015, 3)
    turn = np.cross(np.eye(3), np.deg2rad(rng.normal(0, 3, 3)))
    matrix = (np.diag(1 / scale) + turn - np.eye(3)).astype(np.float32)
    shift = rng.normal(0, 2, 3).astype(np.float32)
    moved = [sum(row[axis] * points[axis] for axis in range(3)) for row in matrix]
    return (np.stack(moved) + shift[:, None, None, None]).astype(np.float32)
