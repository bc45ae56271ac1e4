"""Cells that multiply and migrate: Fisher-KPP from a seed in a lobe.

Cell density follows du/dt = div(D grad u) + rho u (1 - u), with D larger in white matter and along
it, none in CSF or through the dura (Swanson et al., Cell Prolif 2000; Jbabdi et al., MRM 2005).
Time is in units of 1/rho, D in mm2 of the squared front width.
"""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import smooth_step
from gliomoe.data_shards.phantom.patients.markers import Glioma
from gliomoe.data_shards.phantom.tumour.diffusion import divergence, dura, face_diffusivity

CORE_DENSITY = 0.5

_LOBES = {
    "frontal": (30.0, 32.0, 26.0),
    "temporal": (48.0, -16.0, -16.0),
    "parietal": (32.0, -48.0, 42.0),
    "occipital": (26.0, -82.0, 8.0),
    "insula": (38.0, 4.0, 2.0),
}
"""Centres in MNI152 space, mm; the first coordinate holds for either side."""
_CALLOSAL = {"frontal": (13.0, 26.0, 14.0), "parietal": (13.0, -42.0, 22.0)}
"""Deep sites from which a tumour crosses the genu or splenium (a butterfly)."""
_CALLOSAL_SHARE = 0.2
"""Of the deep tumours of these lobes; chosen so that butterflies are a few in a hundred."""

_LOBE_RADIUS_MM = 14.0
_GREY_TO_WHITE = 0.2
"""Diffusivity in grey matter over that in white (Swanson et al.)."""
_MAX_STEPS = 600
_STEPS_A_BOX = 8
_MARGIN = 6
"""Voxels between cells and the edge of the box that is computed."""
_TRACE = 1e-4


def seed_point(
    glioma: Glioma, anatomy: Anatomy, depth: np.ndarray, rng: np.random.Generator
) -> tuple[int, ...]:
    """A voxel of the lobe, near the cortex or deep in white matter.

    Args:
        glioma: Traits.
        anatomy: The brain on the model grid.
        depth: [D, H, W] mm below the surface of the brain.
        rng: Source of side and place.
    """
    side = 1 if rng.random() < 0.5 else -1
    callosal = rng.random() < _CALLOSAL_SHARE
    if glioma.cortical:
        site = smooth_step(depth, 16, 10) * (depth > 5) * (anatomy.gm + anatomy.wm)
        callosal = False
    else:
        site = smooth_step(depth, 16, 24) * anatomy.wm
    centres = {**_LOBES, **_CALLOSAL} if callosal else _LOBES
    x, y, z = centres[glioma.lobe]
    centre = np.array([side * x, y, z], np.float32)[:, None, None, None]
    radius = _LOBE_RADIUS_MM * (0.5 if callosal else 1)
    far = ((anatomy.position - centre) ** 2).sum(0) / (2 * radius**2)
    weight = (np.exp(-far) * site * (anatomy.csf < 0.2) * ~dura(anatomy)).ravel().astype(np.float64)
    chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random())
    return tuple(int(i) for i in np.unravel_index(chosen, anatomy.grid.shape))


def invade(
    anatomy: Anatomy,
    seed: tuple[int, ...],
    width_mm: float,
    core_ml: float,
    unevenness: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Grow until the core has a volume, or room or time ends.

    Args:
        anatomy: The brain, on any grid.
        seed: Voxel.
        width_mm: Root of diffusivity over proliferation rate.
        core_ml: Volume with a density above one half.
        unevenness: [D, H, W] factor of the proliferation rate, about 1; None for 1.

    Returns:
        Density, and how long each voxel has been core in units of 1/rho; [D, H, W] float32.
    """
    spacing = anatomy.grid.spacing
    faces = face_diffusivity(anatomy, width_mm**2, _GREY_TO_WHITE * width_mm**2)
    step = np.float32(min(0.25, spacing**2 / (6.5 * width_mm**2)))
    rate = (step * (anatomy.csf < 0.7) * anatomy.brain).astype(np.float32)
    if unevenness is not None:
        rate *= unevenness
    density, exposure = np.zeros((2, *anatomy.grid.shape), np.float32)
    density[tuple(slice(max(i - 1, 0), i + 2) for i in seed)] = 0.8
    density *= rate > 0
    density[seed] = 0.8
    wanted = core_ml * 1000 / spacing**3
    for _ in range(_MAX_STEPS // _STEPS_A_BOX):
        box = _around(density > _TRACE)
        cells, time = density[box], exposure[box]
        walls = [_inner(face, box, axis) for axis, face in enumerate(faces)]
        for _ in range(_STEPS_A_BOX):
            change = step * divergence(cells, walls, spacing)
            change += rate[box] * cells * (1 - cells)
            cells += change
            core = cells > CORE_DENSITY
            time += step * core
            if np.count_nonzero(core) >= wanted:
                return np.clip(density, 0, 1), exposure
    return np.clip(density, 0, 1), exposure


def _around(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask with a margin, inside the array."""
    (box,) = ndimage.find_objects(mask.astype(np.int8))
    return tuple(slice(max(side.start - _MARGIN, 0), side.stop + _MARGIN) for side in box)


def _inner(face: np.ndarray, box: tuple[slice, ...], axis: int) -> np.ndarray:
    """Faces between the voxels of a box."""
    count = face.shape[axis] + 1
    sides = list(box)
    sides[axis] = slice(box[axis].start, min(box[axis].stop, count) - 1)
    return face[tuple(sides)]
