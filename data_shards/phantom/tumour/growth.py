"""Gliomas grown in a brain: reaction and diffusion, mass effect, necrosis, rim and oedema.

Cell density follows Fisher-KPP, du/dt = div(D grad u) + rho u (1 - u), with D larger in white
matter and along it, none in CSF or across the mid-line outside the corpus callosum (Swanson et
al., Cell Prolif 2000; Jbabdi et al., MRM 2005). Time is in units of 1/rho, D in mm2 of the squared
front width. All fields live on the model grid.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, smooth_noise, smooth_step
from gliomoe.data_shards.phantom.patients.markers import Glioma

_LOBES = {
    "frontal": (30.0, 32.0, 26.0),
    "temporal": (48.0, -16.0, -16.0),
    "parietal": (32.0, -48.0, 42.0),
    "occipital": (26.0, -82.0, 8.0),
    "insula": (38.0, 4.0, 2.0),
}
"""Centres in MNI152 space, mm; the first coordinate holds for either side."""

_LOBE_RADIUS_MM = 14.0
_CORE_DENSITY = 0.5
_GREY_TO_WHITE = 0.2
"""Diffusivity in grey matter over that in white (Swanson et al.)."""
_MAX_STEPS = 600
_VOXEL_ML = MODEL_GRID.spacing**3 / 1000


@dataclass(frozen=True)
class Tumour:
    """Fields of one tumour on the model grid, [D, H, W] float32."""

    density: np.ndarray
    """Cells, 0 to 1."""
    necrosis: np.ndarray
    """mm beyond the living rim: positive where tissue has died."""
    enhancing: np.ndarray
    """0 to 1, of the living core."""
    oedema: np.ndarray
    """Share of fluid, 0 to 1."""
    calcification: np.ndarray
    """0 to 1, of the core."""
    interior: np.ndarray
    """0 to 1: inside a core with T2-FLAIR mismatch, away from its rim."""
    texture: np.ndarray
    """Unit-variance noise."""
    push: np.ndarray
    """[3, D, H, W] mm by which tissue was displaced."""


def grow_tumour(glioma: Glioma, anatomy: Anatomy, rng: np.random.Generator) -> Tumour:
    """Grow a tumour in a brain until its core has the volume asked for, or room ends.

    Args:
        glioma: Traits.
        anatomy: The brain on the model grid, without mass effect.
        rng: Source of seed point and noise.
    """
    density, exposure = _grow(glioma, anatomy, rng)
    core = density > _CORE_DENSITY
    depth = ndimage.distance_transform_edt(core).astype(np.float32) * MODEL_GRID.spacing
    uneven, patches, grains, texture = smooth_noise(rng, 5.0, channels=4)
    # The front moves 2 front widths a unit of time, so that exposure is depth behind the front;
    # where a barrier stopped the front the true depth counts.
    behind = np.minimum(2 * glioma.infiltration_mm * exposure, 1.2 * depth)
    rim = glioma.rim_mm * (1 + 0.2 * uneven)
    dead = behind - rim if glioma.enhancement == "ring" else np.full_like(density, -1e3)
    enhancing = {
        "ring": smooth_step(uneven, -1.9, -1.5),
        "patchy": smooth_step(patches, 0.3, 0.7) * smooth_step(depth, 3, 6),
        "none": np.zeros_like(density),
    }[glioma.enhancement]
    calcified = smooth_step(grains, 1.1, 1.5) * smooth_step(depth, 2, 5) * glioma.calcified
    return Tumour(
        density=density,
        necrosis=dead.astype(np.float32),
        enhancing=enhancing,
        oedema=_spread_oedema(core, glioma.oedema_mm, anatomy, texture),
        calcification=calcified.astype(np.float32),
        interior=smooth_step(depth, 2.5, 6.0) * np.float32(glioma.mismatch),
        texture=texture * np.float32(glioma.texture),
        push=_mass_effect(core, glioma, rng),
    )


def _seed_point(glioma: Glioma, anatomy: Anatomy, rng: np.random.Generator) -> tuple[int, ...]:
    """A voxel of the lobe, near the cortex or deep in white matter."""
    x, y, z = _LOBES[glioma.lobe]
    side = 1 if rng.random() < 0.5 else -1
    centre = np.array([side * x, y, z], np.float32)[:, None, None, None]
    far = ((anatomy.position - centre) ** 2).sum(0) / (2 * _LOBE_RADIUS_MM**2)
    depth = ndimage.distance_transform_edt(anatomy.brain) * MODEL_GRID.spacing
    if glioma.cortical:
        site = smooth_step(depth, 16, 10) * (depth > 5) * (anatomy.gm + anatomy.wm)
    else:
        site = smooth_step(depth, 16, 24) * anatomy.wm
    weight = (np.exp(-far) * site * (anatomy.csf < 0.2)).ravel().astype(np.float64)
    chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random())
    return tuple(int(i) for i in np.unravel_index(chosen, anatomy.grid.shape))


def _grow(
    glioma: Glioma, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Density, and the time that each voxel has been core."""
    faces = _face_diffusivity(anatomy, glioma.infiltration_mm**2)
    step = min(0.25, MODEL_GRID.spacing**2 / (6.5 * glioma.infiltration_mm**2))
    rate = np.float32(step) * (1 + 0.35 * np.clip(smooth_noise(rng, 7.0), -2, 2))
    rate *= anatomy.csf < 0.7
    seed = _seed_point(glioma, anatomy, rng)
    density = np.zeros(anatomy.grid.shape, np.float32)
    density[tuple(slice(max(i - 1, 0), i + 2) for i in seed)] = 0.8
    exposure = np.zeros_like(density)
    wanted = glioma.core_ml / _VOXEL_ML
    for _ in range(_MAX_STEPS):
        flow = _divergence(density, faces)
        density += np.float32(step) * flow + rate * density * (1 - density)
        core = density > _CORE_DENSITY
        exposure += np.float32(step) * core
        if np.count_nonzero(core) >= wanted:
            break
    return np.clip(density, 0, 1), exposure


def _face_diffusivity(anatomy: Anatomy, white: float) -> list[np.ndarray]:
    """Diffusivity between neighbours along each axis, mm2.

    Across the edge of white matter it is lower than along it, and it is 0 into CSF and through the
    falx; a face takes the harmonic mean of its two voxels, so that any barrier closes it.
    """
    gradient = np.stack(np.gradient(ndimage.gaussian_filter(anatomy.wm, 1.0)))
    norm = (gradient**2).sum(0) + np.float32(2e-3)
    falx = (np.abs(anatomy.position[0]) < MODEL_GRID.spacing) & (anatomy.wm < 0.5)
    tissue = (anatomy.wm + np.float32(_GREY_TO_WHITE) * anatomy.gm) * ~falx
    tissue *= smooth_step(anatomy.csf, 0.6, 0.3)
    faces = []
    for axis in range(3):
        along = np.float32(white) * tissue * (1 - 0.8 * gradient[axis] ** 2 / norm) + 1e-6
        first, second = np.delete(along, -1, axis), np.delete(along, 0, axis)
        faces.append((2 * first * second / (first + second)).astype(np.float32))
    return faces


def _divergence(field: np.ndarray, faces: list[np.ndarray]) -> np.ndarray:
    """div(D grad field) with closed outer faces, per mm2."""
    out = np.zeros_like(field)
    for axis, face in enumerate(faces):
        flux = face * np.diff(field, axis=axis)
        lower = [slice(None)] * 3
        upper = [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        out[tuple(lower)] += flux
        out[tuple(upper)] -= flux
    return out / np.float32(MODEL_GRID.spacing**2)


def _spread_oedema(
    core: np.ndarray, reach_mm: float, anatomy: Anatomy, texture: np.ndarray
) -> np.ndarray:
    """Fluid that diffuses from the core through white matter for a while."""
    faces = _face_diffusivity(anatomy, 1.0)
    step = MODEL_GRID.spacing**2 / 6.5
    fluid = core.astype(np.float32)
    for _ in range(int(np.ceil(reach_mm**2 / 2 / step))):
        fluid += np.float32(step) * _divergence(fluid, faces)
        fluid[core] = 1
    return (
        smooth_step(fluid * (1 + 0.2 * texture), 0.25, 0.55)
        * smooth_step(anatomy.csf, 0.6, 0.3)
        * (1 - 0.6 * anatomy.gm)
    )


def _mass_effect(core: np.ndarray, glioma: Glioma, rng: np.random.Generator) -> np.ndarray:
    """Displacement away from the core, largest at its edge and fading over some 15 mm."""
    bulk = ndimage.gaussian_filter(core.astype(np.float32), 10.0 / MODEL_GRID.spacing)
    slope = np.stack(np.gradient(bulk))
    radius = (3 * core.sum() * _VOXEL_ML * 1000 / (4 * np.pi)) ** (1 / 3)
    reach = radius * rng.uniform(0.1, 0.3)
    return (-slope * np.float32(reach) / np.sqrt((slope**2).sum(0)).max()).astype(np.float32)
