"""What the core consists of: necrosis, a rim of new vessels, patches, calcification, a dark inside.

Where cells have been dense for long and far from the border, tissue dies. Hypoxic tissue around
the dead calls new vessels, which leak contrast agent: the rim enhances as far as that signal
reaches, so that lobes far from necrosis do not. All fields live on the tumour's detail grid.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.grid import smooth_step
from gliomoe.data_shards.phantom.patients.markers import Glioma

_LEAST_NECROSIS = 0.08
"""Share of the core that is dead in every tumour with a ring."""
_SIGNAL = 2.0
"""How far new vessels reach from necrosis, in rims."""
_FADE_MM = 0.8
"""Half-width of the border between parts."""


@dataclass(frozen=True)
class Noises:
    """Independent fields of unit variance on the detail grid, [D, H, W]."""

    fine: np.ndarray
    grain: np.ndarray
    medium: np.ndarray
    patch: np.ndarray
    coarse: np.ndarray
    lobes: np.ndarray


@dataclass(frozen=True)
class Habit:
    """How one tumour differs from others with the same traits; drawn once, shares and mm."""

    roughness_mm: float
    """Of the border."""
    lobulation_mm: float
    """Of the border, in waves of a centimetre and more."""
    fullness: float
    """Tumour in a voxel of solid core; the rest is tissue that it infiltrates."""
    liquefaction: float
    """Fluid in a voxel of necrosis; the rest is solid."""
    leakage: float
    """Enhancing tissue in a voxel of rim."""
    coverage: float
    """Of the core by patches that enhance."""
    gaps: float
    """Below this noise the rim is broken."""
    clumps: float
    """Of the core by calcification."""
    fluid: float
    """Oedema in a voxel of soaked white matter, at most."""


def draw_habit(glioma: Glioma, rng: np.random.Generator) -> Habit:
    """Chosen so that volumes, shapes and contrasts vary as among BraTS cases."""
    enhancing = glioma.enhancement != "none"
    # Ring tumours push their way and are rounder than those that infiltrate.
    even = 0.6 if glioma.enhancement == "ring" else 1.0
    return Habit(
        roughness_mm=even * rng.uniform(0.4, 2.6),
        lobulation_mm=even * rng.uniform(0.0, 3.5),
        fullness=1.0 if glioma.mismatch else rng.uniform(0.8 if enhancing else 0.55, 1.0),
        liquefaction=rng.uniform(0.45, 1.0),
        leakage=rng.uniform(0.65, 1.0),
        coverage=rng.uniform(0.05, 0.6),
        gaps=rng.uniform(-2.4, -1.2),
        clumps=rng.uniform(0.05, 0.13),
        fluid=rng.uniform(0.6, 1.0),
    )


def parts_of_core(
    glioma: Glioma, habit: Habit, core: np.ndarray, time: np.ndarray, spacing: float, noises: Noises
) -> dict[str, np.ndarray]:
    """Shares of the core by tissue.

    Args:
        glioma: Traits.
        habit: The tumour's own ways.
        core: [D, H, W] bool.
        time: [D, H, W] mm that the front has moved since it passed.
        spacing: mm.
        noises: Unevenness.

    Returns:
        Tissue → [D, H, W] float32; they sum to 1 or, where brain is left between cells, less.
    """
    depth = inside_mm(core, spacing)
    parts: dict[str, np.ndarray] = {}
    necrosis = enhancing = np.zeros(core.shape, np.float32)
    if glioma.enhancement == "ring":
        necrosis, enhancing = _ring(glioma.rim_mm, habit, core, depth, time, spacing, noises)
    elif glioma.enhancement == "patchy":
        enhancing = _patches(habit, core, depth, noises)
    living = 1 - necrosis
    parts["calcification"] = living * _clumps(glioma, habit, core, depth, noises)
    living = living - parts["calcification"]
    uneven = np.clip(1 + 0.12 * noises.medium + 0.08 * noises.fine, 0, None)
    parts["enhancing"] = living * np.clip(enhancing * habit.leakage * uneven, 0, 1)
    parts["necrosis"] = necrosis * np.float32(habit.liquefaction)
    dark = smooth_step(depth, 2.5, 6.0) * np.float32(glioma.mismatch)
    living = living - parts["enhancing"]
    parts["mismatch"] = living * dark
    full = np.clip(habit.fullness * uneven, 0, 1)
    solid = living * (1 - dark) * np.where(enhancing > 0.5, np.float32(1), full)
    parts["solid"] = solid + necrosis * np.float32(1 - habit.liquefaction)
    return parts


def inside_mm(mask: np.ndarray, spacing: float) -> np.ndarray:
    """Depth below the surface of a mask in mm, 0 outside; float32.

    Distances count from voxel centres, half a voxel is taken off.
    """
    out = np.zeros(mask.shape, np.float32)
    if not mask.any():
        return out
    box = tuple(
        slice(max(side.start - 1, 0), side.stop + 1)
        for side in ndimage.find_objects(mask.astype(np.int8))[0]
    )
    distance = ndimage.distance_transform_edt(mask[box]) - 0.5
    out[box] = np.clip(distance, 0, None) * spacing
    return out


def _ring(
    rim_mm: float,
    habit: Habit,
    core: np.ndarray,
    depth: np.ndarray,
    time: np.ndarray,
    spacing: float,
    noises: Noises,
) -> tuple[np.ndarray, np.ndarray]:
    """Necrosis, and the rim around it: uneven, in places nodular, in places broken."""
    nodules = 1 + 0.7 * smooth_step(noises.coarse, 1.0, 1.8)
    uneven = np.exp(np.float32(0.18) * noises.medium) * nodules
    behind = np.minimum(depth, time) + np.float32(0.5) * noises.fine
    rims = behind / uneven
    # The thickest rim that leaves some necrosis in a small tumour.
    rim = min(rim_mm, float(np.quantile(rims[core], 1 - _LEAST_NECROSIS)))
    beyond = (rims - np.float32(rim)) * uneven
    dead = core & (beyond > 0)
    far = ndimage.distance_transform_edt(~dead) * spacing
    reach = np.float32(_SIGNAL * rim) * uneven - far.astype(np.float32)
    vessels = smooth_step(reach, -1, 1) * smooth_step(noises.patch, habit.gaps, habit.gaps + 0.3)
    return smooth_step(beyond, -_FADE_MM, _FADE_MM), vessels


def _patches(habit: Habit, core: np.ndarray, depth: np.ndarray, noises: Noises) -> np.ndarray:
    """Scattered enhancement without a ring."""
    field = noises.patch + np.float32(0.45) * noises.grain
    bound = float(np.quantile(field[core], 1 - habit.coverage))
    return smooth_step(field, bound - 0.2, bound + 0.2) * smooth_step(depth, 0.5, 2)


def _clumps(
    glioma: Glioma, habit: Habit, core: np.ndarray, depth: np.ndarray, noises: Noises
) -> np.ndarray:
    """Coarse calcification."""
    if not glioma.calcified:
        return np.zeros(core.shape, np.float32)
    field = noises.coarse + np.float32(0.5) * noises.medium
    field = np.where(depth > 1.5, field, np.float32(-9))
    bound = float(np.quantile(field[core], 1 - habit.clumps))
    return smooth_step(field, bound - 0.12, bound + 0.12)
