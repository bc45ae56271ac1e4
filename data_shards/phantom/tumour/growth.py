"""One glioma in one brain: invasion, mass effect, structure, oedema, satellites, resection.

Cells grow on the model grid, in the brain before mass effect; everything is then carried along with
the tissue and given its fine structure on a detail grid around the tumour. That grid is fixed in
mm, so that a subject has the same tumour at every spacing.
"""

from dataclasses import dataclass

import numpy as np

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, brain_grid, smooth_noise, smooth_step
from gliomoe.data_shards.phantom.patients.markers import Glioma
from gliomoe.data_shards.phantom.tumour.invasion import CORE_DENSITY, invade, seed_point
from gliomoe.data_shards.phantom.tumour.mass_effect import displace
from gliomoe.data_shards.phantom.tumour.oedema import spread_fluid
from gliomoe.data_shards.phantom.tumour.resection import cut_cavity, find_corridor
from gliomoe.data_shards.phantom.tumour.satellites import Satellite, place_satellites
from gliomoe.data_shards.phantom.tumour.structure import (
    Habit,
    Noises,
    draw_habit,
    inside_mm,
    parts_of_core,
)

DETAIL_GRID = brain_grid(1.5)
"""The tumour's own grid is a box of this one."""

_MARGIN_MM = 6.0
_WET = 0.06
"""Fluid or density below this is not rendered."""
_LOGIT = 6.0
"""Densities are told apart up to this many front widths from the border."""
_EVEN = 0.5
"""Texture of a tumour with mismatch, which is homogeneous, over that of others."""
_REACHED_TISSUE = 0.3
"""Tissue in a voxel that counts as core."""


@dataclass(frozen=True)
class Tumour:
    """One tumour. Fields are [D, H, W] float32 on `grid`, in the brain after mass effect."""

    grid: Grid
    """The detail grid: 1.5 mm, a box around the tumour."""
    core: np.ndarray
    """Membership, 0 to 1."""
    parts: dict[str, np.ndarray]
    """Tissue → its share of the core; what they leave is infiltrated brain."""
    engulfed: np.ndarray
    """0 to 1: so deep in the core that it has taken up sulci."""
    oedema: np.ndarray
    """Share of fluid and infiltration in white matter, 0 to 1; less is seen in grey matter."""
    cavity: np.ndarray
    """Membership of the resection cavity."""
    texture: np.ndarray
    """To be added to the factor of the signal."""
    satellites: tuple[Satellite, ...]
    satellite_tissue: str
    push: np.ndarray
    """[3, D, H, W] mm on the model grid: tissue seen at x came from x - push(x)."""


def grow_tumour(glioma: Glioma, anatomy: Anatomy, rng: np.random.Generator) -> Tumour:
    """Grow a tumour in a brain until its core has the volume asked for, or room ends.

    Args:
        glioma: Traits.
        anatomy: The brain on the model grid, without mass effect.
        rng: Source of seed point, habit and noise.
    """
    habit = draw_habit(glioma, rng)
    width = glioma.infiltration_mm
    # Sharp borders go with growth that displaces, infiltration spares the architecture.
    strength = rng.uniform(0.15, 0.42) * np.clip(2.6 / width, 0.75, 1.25)
    depth = inside_mm(anatomy.brain, MODEL_GRID.spacing)
    seed = seed_point(glioma, anatomy, depth, rng)
    unevenness = 1 + 0.4 * np.clip(smooth_noise(rng, 7.0), -2, 2)
    # Displacement stretches what has grown.
    density, exposure = invade(
        anatomy, seed, width, glioma.core_ml * (1 - strength) ** 1.5, unevenness
    )
    solid = density > CORE_DENSITY
    fluid = spread_fluid(solid, glioma.oedema_mm, anatomy)
    push = displace(solid, fluid, depth, float(strength) * (0.3 if glioma.resected else 1))

    reached = (density > _WET) | (fluid > _WET)
    way = find_corridor(solid, anatomy, depth) if glioma.resected else None
    if way:
        reached |= anatomy.brain & (way.inside_mm(MODEL_GRID.points()) > 0)
    grid = _detail_grid(reached, push)
    noises = _noises(grid, rng)
    source = grid.points() - MODEL_GRID.resample(push, grid)
    tissue = anatomy.gm + anatomy.wm
    fields = np.stack([_behind(density, width), 2 * np.float32(width) * exposure, fluid, tissue])
    behind, time, fluid, tissue = MODEL_GRID.sample(fields, source)
    rough = noises.medium + np.float32(0.6) * noises.fine
    behind = behind + np.float32(habit.roughness_mm) * rough
    behind += np.float32(habit.lobulation_mm) * noises.lobes
    behind -= _border(behind, tissue > _REACHED_TISSUE, glioma.core_ml, grid, width)
    core = behind > 0
    fade = 0.15 * width + 0.3
    membership = smooth_step(behind, -fade, fade)
    cavity = cut_cavity(behind, grid, way, noises, rng) if way else np.zeros_like(behind)
    # Fine grain, and a part of it that coarse voxels still show; fluid has none.
    grain = np.float32(0.6) * noises.grain + np.float32(0.8) * noises.patch
    grain *= membership * (1 - cavity)
    return Tumour(
        grid=grid,
        core=membership,
        parts=parts_of_core(glioma, habit, core, time, grid.spacing, noises),
        engulfed=smooth_step(inside_mm(core, grid.spacing), 2, 5),
        oedema=_wetness(fluid, behind, width, habit, noises),
        cavity=cavity,
        texture=np.float32(glioma.texture * (_EVEN if glioma.mismatch else 1)) * grain,
        satellites=_foci(glioma.satellites, grid, membership, anatomy, push, rng),
        satellite_tissue="solid" if glioma.enhancement == "none" else "enhancing",
        push=push,
    )


def _detail_grid(mask: np.ndarray, push: np.ndarray) -> Grid:
    """The box of the detail grid around a mask on the model grid, wherever it is pushed."""
    reach = _MARGIN_MM + float(np.abs(push).max())
    start, shape, origin = [], [], []
    for axis in range(3):
        places = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = MODEL_GRID.origin[axis] + MODEL_GRID.spacing * places[[0, -1]]
        ends = (
            np.array([low - reach, high + reach]) - DETAIL_GRID.origin[axis]
        ) / DETAIL_GRID.spacing
        first = max(int(np.floor(ends[0])), 0)
        last = min(int(np.ceil(ends[1])), DETAIL_GRID.shape[axis] - 1)
        start.append(first)
        shape.append(last - first + 1)
        origin.append(DETAIL_GRID.origin[axis] + DETAIL_GRID.spacing * first)
    return Grid(tuple(shape), DETAIL_GRID.spacing, tuple(origin))


def _noises(grid: Grid, rng: np.random.Generator) -> Noises:
    """Unevenness from the grain of tissue to the lobes of a tumour."""
    fine = {"fine": 1.6, "grain": 1.8}
    wide = {"medium": 3.5, "patch": 4.5, "coarse": 4.0, "lobes": 6.0}
    half = Grid(tuple(side // 2 + 1 for side in grid.shape), 2 * grid.spacing, grid.origin)
    fields = {name: smooth_noise(rng, mm, grid=grid) for name, mm in fine.items()}
    for name, mm in wide.items():
        fields[name] = half.resample(smooth_noise(rng, mm, grid=half), grid)
    return Noises(**fields)


def _behind(density: np.ndarray, width: float) -> np.ndarray:
    """Distance behind the front in mm: densities fall by e over a front width ahead of it."""
    odds = np.maximum(density, np.float32(1e-6)) / np.maximum(1 - density, np.float32(1e-6))
    return np.float32(width) * np.clip(np.log(odds), -_LOGIT, _LOGIT)


def _foci(
    count: int,
    grid: Grid,
    membership: np.ndarray,
    anatomy: Anatomy,
    push: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Satellite, ...]:
    """Satellites anywhere on the model grid, in white matter where it has been pushed."""
    if not count:
        return ()
    points = MODEL_GRID.points()
    wm = MODEL_GRID.sample(anatomy.wm, points - push)
    core = grid.sample(membership, points) > 0.1
    return place_satellites(count, core, wm, MODEL_GRID, rng)


def _border(
    behind: np.ndarray, tissue: np.ndarray, core_ml: float, grid: Grid, width: float
) -> float:
    """How far behind the front, in mm, the core has its volume; never far from the front."""
    values = behind[tissue]
    count = int(core_ml * 1000 / grid.spacing**3)
    if count >= values.size:
        return -width
    bound = float(np.partition(values, -count)[-count])
    return float(np.clip(bound, -1.5 * width, 2 * width))


def _wetness(
    fluid: np.ndarray, behind: np.ndarray, width: float, habit: Habit, noises: Noises
) -> np.ndarray:
    """Oedema and infiltration, graded: most near the core, nothing sharp at their end."""
    uneven = 1 + 0.25 * noises.coarse + 0.12 * noises.fine
    soaked = smooth_step(fluid * uneven, 0.08, 0.34)
    infiltrated = smooth_step(behind + np.float32(0.5) * noises.fine, -2.5 * width, 0)
    share = np.maximum(soaked, infiltrated) * np.clip(1 + 0.18 * noises.patch, 0.5, 1.3)
    return np.clip(np.float32(habit.fluid) * share, 0, 1).astype(np.float32)
