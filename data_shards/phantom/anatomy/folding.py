"""Gyri and sulci of one person: random sheets of fluid, lined by grey matter.

The mean of 152 heads shows the folds that all heads share (insula, cingulate, central sulcus) and
blurs the rest. There a smooth random field decides: its zeros are sheets, stretched along the
radius so that they cut into the brain from its surface, and the distance from the nearest sheet
makes the sulcus, the cortical ribbon and the white blade of the gyrus, in this order.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.template import tissue_maps
from gliomoe.data_shards.phantom.grid import brain_grid, smooth_noise, smooth_step

FOLDING_GRID = brain_grid(2.0)
"""Where a subject's folding is kept, in the space of the template."""

_GYRUS = 3.0
"""Smoothness in mm; zeros of such a field are 4.4 times as far apart, 13 mm."""

_CENTRE = (0.0, -22.0, 4.0)
_AXES = (68.0, 86.0, 72.0)
"""Ellipsoid of the hemispheres, mm."""

_RADIAL = 0.7
"""0 folds in every direction, 1 folds along the radius alone."""

_MANTLE = (0.45, 0.6)
"""Radii in the ellipsoid between which folds set in; inside lie nuclei and ventricles."""

_STEM = ((0.0, -28.0, -36.0), (19.0, 24.0, 34.0))
"""Centre and axes, mm, of the brain stem, which has no folds."""

_LEAVES = (0.0, -48.0, -34.0)
_FOLIA = 1.5
"""Middle of the leaves of the cerebellum, mm, and how much finer they are than gyri."""

_LEAF_SHARE = 0.5
"""Share of the width of a sulcus that a cleft between leaves has."""

_FAR = 12.0
"""Distance in mm beyond which no fold matters."""

RIBBON_MM = 2.4
"""Thickness of the cortex (Fischl and Dale, PNAS 2000)."""

_SULCUS_MM = (0.24, 0.55)
"""Half the width of a sulcus in a young and an old head."""

_SURE = 2.4
"""Log-odds of white against grey matter from which on the template has no sulcus."""

_PULL = 1.0
"""mm that a unit of the template's log-odds moves the edge of the white matter."""

_WHITER = 0.4
"""mm by which the edge lies further out, chosen so that grey and white matter fill about 0.51 and
0.36 of a young head."""

_EDGE_MM = 1.0
"""Width of the edge of the white matter in the tissue itself."""

_REACH = 3.5
"""mm by which the middle of a gyrus may turn into white matter what is grey in most heads."""


def draw_folding(rng: np.random.Generator) -> np.ndarray:
    """A person's folds.

    Args:
        rng: Source of the field.

    Returns:
        Signed distance from the nearest sulcus, [D, H, W] float32 mm on `FOLDING_GRID`.
    """
    field = FOLDING_GRID.sample(smooth_noise(rng, _GYRUS, grid=FOLDING_GRID), _along_the_surface())
    slope = np.stack(np.gradient(field, FOLDING_GRID.spacing))
    steepness = np.sqrt((slope**2).sum(0))
    # Where the field is flat there is no sheet near, and its distance stays finite.
    return np.clip(field / (steepness + 0.2 * steepness.mean()), -_FAR, _FAR)


def fold(
    white: np.ndarray, distance: np.ndarray, surface: np.ndarray, atrophy: float, spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sulci and white matter of folded tissue, as voxels of a size see them.

    Args:
        white: The template's share of white matter in solid tissue, [N].
        distance: From the nearest sulcus, signed, [N] mm.
        surface: Samples of `surface_maps`, [2, N].
        atrophy: 0 narrow, 1 wide sulci.
        spacing: Voxel size in mm.

    Returns:
        Share of sulci in the voxel and share of white matter in its solid tissue, both [N].
    """
    depth, mantle = surface
    odds = np.log((white + np.float32(0.01)) / (np.float32(1.01) - white))
    low, high = _SULCUS_MM
    half = np.float32(low + (high - low) * atrophy) * mantle
    half *= smooth_step(odds, _SURE, _SURE - 1.5)
    # A sheet of this width, seen by a box of the size of a voxel.
    sulcus = _box(distance + half, spacing) - _box(distance - half, spacing)
    bank = np.minimum(np.abs(distance) - half, depth) - np.float32(RIBBON_MM)
    pull = (
        np.float32(_PULL) * odds + np.float32(_WHITER) + mantle * np.clip(bank, -RIBBON_MM, _REACH)
    )
    return sulcus, _box(pull, np.hypot(1.2 * spacing, _EDGE_MM))


def _box(distance: np.ndarray, width: float) -> np.ndarray:
    """Share of a box on the positive side of a plane at a signed distance in mm."""
    return np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)


@lru_cache(maxsize=1)
def surface_maps() -> np.ndarray:
    """Where in the template folds may be.

    Returns:
        [2, D, H, W] float32 on `FOLDING_GRID`: depth below the surface in mm, and the share of the
        random folds, 0 in nuclei, ventricles and brain stem. The cerebellum counts as shallow, so
        that its leaves have no white blades.
    """
    template, maps = tissue_maps(FOLDING_GRID.spacing)
    brain = template.resample(maps[2], FOLDING_GRID) > 0.5
    spacing = np.float32(FOLDING_GRID.spacing)
    depth = ndimage.distance_transform_edt(brain).astype(np.float32) * spacing - spacing / 2
    depth[_cerebellum()] = RIBBON_MM
    stem = smooth_step(_radius(*_STEM)[1], 1.2, 0.9)
    below = smooth_step(FOLDING_GRID.points()[2], -10, -20)
    mantle = np.maximum(smooth_step(_radius(_CENTRE, _AXES)[1], *_MANTLE), below)
    mantle *= np.where(_cerebellum(), np.float32(_LEAF_SHARE), 1) * (1 - stem)
    return np.stack([depth, mantle])


@lru_cache(maxsize=1)
def _along_the_surface() -> np.ndarray:
    """Where the random field is read, [3, D, H, W] mm: nearly the same along a radius."""
    arm, radius = _radius(_CENTRE, _AXES)
    along = arm * (1 - _RADIAL + _RADIAL / np.maximum(radius, np.float32(0.05)))
    # The leaves of the cerebellum run from left to right around its middle.
    arm, radius = _radius(_LEAVES, (np.inf, 40.0, 30.0))
    leaves = _FOLIA * arm * (1 - _RADIAL + _RADIAL / np.maximum(radius, np.float32(0.5)))
    leaves[0] /= _FOLIA * 4
    mixed = np.where(_cerebellum(), leaves, along)
    return mixed + np.array(_CENTRE, np.float32).reshape(3, 1, 1, 1)


def _cerebellum() -> np.ndarray:
    """[D, H, W] bool, what lies below the tentorium behind the stem."""
    x, y, z = FOLDING_GRID.points()
    return (z < -10 - 0.35 * np.abs(x) + 0.25 * (y + 50)) & (y < -34)


def _radius(centre: tuple[float, ...], axes: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Arms from a centre, [3, D, H, W] mm, and their length in an ellipsoid, [D, H, W]."""
    arm = FOLDING_GRID.points() - np.array(centre, np.float32).reshape(3, 1, 1, 1)
    squares = [(part / np.float32(axis)) ** 2 for part, axis in zip(arm, axes, strict=True)]
    return arm, np.sqrt(sum(squares))
