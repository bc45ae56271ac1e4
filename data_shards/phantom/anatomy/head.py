"""What surrounds a brain: fluid, skull, scalp, muscles, eyes, a plain face and neck.

The skull encloses the brain's hull in shells of individual thickness; face and neck are simple
bodies in the template's space, so that they follow the subject's deformation. Enough for brain
extraction to have something to extract: no ears, no teeth, no airways but the cavities of the face.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy, build_anatomy
from gliomoe.data_shards.phantom.anatomy.shape import HeadShape
from gliomoe.data_shards.phantom.grid import (
    MODEL_GRID,
    Grid,
    head_grid,
    head_padding,
    smooth_noise,
    smooth_step,
)

HEAD_TISSUES = ("csf", "skull", "marrow", "scalp_fat", "muscle", "eye")

SKULL_MM = (6.3, 0.7)
"""Mean and deviation between people (mean and range of sites, 5.3 to 7.5 mm, by Moreira-Gonzalez et
al., Plast Reconstr Surg 2006; the deviation is a choice)."""

_INNER, _MARROW = 0.22, 0.52
"""Share of the inner table and of the marrow in the thickness of the skull."""

_FLUID_MM = (1.0, 1.5)
"""Fluid and meninges outside the brain's hull, young, and how much more when old; a choice."""

SKIN_MM = 1.6
FAT_MM = (3.6, 0.9)
"""Mean and deviation between people of the fat below the skin; a choice."""

_TEMPORAL_MM = 9.0
_TEMPORAL = ((0.0, 8.0, -20.0), (34.0, 42.0))
"""Thickness of the temporal muscle, and its middle and axes along y and z, mm."""

_HULL_MM = 9.0
"""Radius of the clefts that the skull does not follow."""

_EYE = (32.0, 60.0, -39.0)
_EYE_MM, _ORBIT_MM = 13.0, 20.0
"""Place (mirrored) and radius of the eye, radius of the fat around it, mm of the template."""

_FACE = ((0.0, 42.0, -62.0), (60.0, 50.0, 66.0))
_NECK = ((0.0, -32.0), (58.0, 62.0), -40.0)
"""Centre and axes of the face; of the neck with the height below which it begins, mm."""

_CANAL = ((0.0, -42.0), 10.0, -62.0)
_SPINE = ((0.0, -18.0), 13.0, -78.0)
"""Centre, radius and upper end of the spinal canal and of the vertebral bodies, mm."""


_SLAB = 16
"""Slices that are worked on at a time."""


@dataclass(frozen=True)
class _Body:
    """What a head is rendered from; fields are [D, H, W] float32 on `head_grid` of 3 mm."""

    hull: np.ndarray
    """mm outside the brain's hull."""
    surface: np.ndarray
    """mm outside the skin."""
    skull: np.ndarray
    """Thickness in mm."""
    eye: np.ndarray
    """mm outside the nearer eye."""
    canal: np.ndarray
    spine: np.ndarray
    """mm outside them."""
    mixture: np.ndarray
    """Above 1 air, below -0.5 fat among muscle; 0 outside the face."""
    fluid_mm: float
    """Thickness of the fluid outside the hull."""
    fat_mm: float
    """Thickness of the fat below the skin."""


def head_tissues(
    head_shape: HeadShape, anatomy: Anatomy, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Shares of all that is not brain.

    Args:
        head_shape: The head.
        anatomy: Its brain on `brain_grid(spacing)`.
        rng: Source of thicknesses and of the face.

    Returns:
        Each of `HEAD_TISSUES` → [D, H, W] float16 on `head_grid(spacing)`; 0 in the brain, 1 or
        less in all, and what is missing outside the brain is air.
    """
    body = _draw_body(head_shape, rng)
    grid = head_grid(anatomy.grid.spacing)
    brain = np.pad(anatomy.brain, head_padding(grid.spacing))
    tissues = {name: np.empty(grid.shape, np.float16) for name in HEAD_TISSUES}
    # Slab by slab, because at 1 mm a head has ten million voxels.
    for start in range(0, grid.shape[0], _SLAB):
        place = slice(start, min(start + _SLAB, grid.shape[0]))
        origin = (grid.origin[0] + start * grid.spacing, *grid.origin[1:])
        slab = Grid((place.stop - start, *grid.shape[1:]), grid.spacing, origin)
        for name, share in _shares(body, slab).items():
            tissues[name][place] = np.where(brain[place], 0, share)
    return tissues


def _shares(body: _Body, grid: Grid) -> dict[str, np.ndarray]:
    """Shares of all tissues on a grid, with fluid where the brain is."""
    coarse = head_grid(MODEL_GRID.spacing)
    half = grid.spacing / 2

    def at(field: np.ndarray) -> np.ndarray:
        return coarse.resample(field, grid)

    def below(distance: np.ndarray, bound: np.ndarray | float) -> np.ndarray:
        return smooth_step(distance - bound, half, -half)

    hull, bone = at(body.hull) - np.float32(body.fluid_mm), at(body.skull)
    surface = at(body.surface)
    fluid, inner, marrow, skull = (
        below(hull, np.float32(share) * bone) for share in (0, _INNER, _INNER + _MARROW, 1)
    )
    canal, spine = below(at(body.canal), 0), below(at(body.spine), 0)
    orbit, eye = at(body.eye), (1 - skull)
    eye *= below(orbit, 0)
    orbit = below(orbit, _ORBIT_MM - _EYE_MM)

    soft = (1 - skull) * below(surface, 0)
    deep = (1 - skull) * below(surface, -SKIN_MM - body.fat_mm)
    skin = soft - (1 - skull) * below(surface, -SKIN_MM)
    fat = soft - skin - deep
    bony = spine * (1 - canal)
    flesh = deep * (1 - canal - bony)
    mixture = at(body.mixture)
    lean = smooth_step(mixture, -0.6, -0.4)
    fat += flesh * (1 - lean)
    flesh *= lean * smooth_step(mixture, 1.1, 0.9)
    # An eye lies before the skull, not in it, and in fat.
    shares = {
        "csf": fluid + canal * (skull - fluid + deep),
        "skull": (inner - fluid + skull - marrow) * (1 - canal),
        "marrow": (marrow - inner) * (1 - canal) + deep * bony,
        "scalp_fat": fat * (1 - orbit) + soft * orbit,
        "muscle": (flesh + skin) * (1 - orbit),
    }
    return {**{name: share * (1 - eye) for name, share in shares.items()}, "eye": eye}


def _draw_body(head_shape: HeadShape, rng: np.random.Generator) -> _Body:
    """A person's thicknesses and face."""
    coarse = head_grid(MODEL_GRID.spacing)
    padding = head_padding(MODEL_GRID.spacing)
    bone = float(np.clip(rng.normal(*SKULL_MM), 4.8, 8.2))
    fat = float(np.clip(rng.normal(*FAT_MM), 1.8, 6.5))
    fluid = _FLUID_MM[0] + _FLUID_MM[1] * head_shape.atrophy
    uneven, face = (
        np.pad(smooth_noise(rng, scale), padding, mode="reflect") for scale in (14.0, 4.0)
    )
    hull = _hull_distance(np.pad(build_anatomy(head_shape, MODEL_GRID).brain, padding))
    x, y, z = coarse.points() + MODEL_GRID.resample(head_shape.displacement, coarse)
    lateral = np.exp(
        -sum(
            ((place - middle) / axis) ** 2
            for place, middle, axis in zip((y, z), _TEMPORAL[0][1:], _TEMPORAL[1], strict=True)
        )
    ) * smooth_step(np.abs(x), 35, 60)
    # Thin under the temporal muscle, thick at the back and the base.
    skull = bone * (1 + 0.1 * uneven) * (1 - 0.4 * lateral) * (1 + 0.2 * smooth_step(y, -60, -100))
    muscle = np.float32(_TEMPORAL_MM) * lateral
    scalp = hull - (fluid + skull + fat + SKIN_MM + muscle)
    facial = _ellipsoid((x, y, z), *_FACE)
    neck = np.maximum(_ellipsoid((x, y), *_NECK[:2]), z - _NECK[2])
    eye = np.sqrt((np.abs(x) - _EYE[0]) ** 2 + (y - _EYE[1]) ** 2 + (z - _EYE[2]) ** 2) - _EYE_MM
    surface = np.minimum(np.minimum(scalp, facial), np.minimum(neck, eye - 2))
    canal, spine = (
        np.maximum(np.hypot(x - middle[0], y - middle[1]) - radius, z - top)
        for middle, radius, top in (_CANAL, _SPINE)
    )
    mixture = face * smooth_step(facial, 0, -8) * smooth_step(y, 5, 25)
    return _Body(
        hull=hull,
        surface=surface.astype(np.float32),
        skull=skull.astype(np.float32),
        eye=eye.astype(np.float32),
        canal=canal.astype(np.float32),
        spine=spine.astype(np.float32),
        mixture=mixture.astype(np.float32),
        fluid_mm=fluid,
        fat_mm=fat,
    )


def _hull_distance(brain: np.ndarray) -> np.ndarray:
    """Signed distance in mm from the brain with its clefts closed, positive outside."""
    spacing = MODEL_GRID.spacing
    edt = ndimage.distance_transform_edt
    near = edt(~brain) * spacing > _HULL_MM
    hull = edt(~near) * spacing > _HULL_MM
    hull |= brain
    share = ndimage.gaussian_filter(hull.astype(np.float32), 0.7)
    hull = share > 0.5
    distance = (edt(~hull) - edt(hull)) * spacing
    # Half a voxel lies between a centre and the edge; smooth, it is exact to a fraction of a mm.
    distance -= np.sign(distance) * spacing / 2
    return ndimage.gaussian_filter(distance.astype(np.float32), 0.7)


def _ellipsoid(
    places: tuple[np.ndarray, ...], centre: tuple[float, ...], axes: tuple[float, ...]
) -> np.ndarray:
    """About the distance in mm outside an ellipsoid, or an elliptic cylinder of two axes."""
    radius = np.sqrt(
        sum(
            ((place - middle) / axis) ** 2
            for place, middle, axis in zip(places, centre, axes, strict=True)
        )
    )
    return (radius - 1) * min(axes)
