"""Vasogenic oedema: fluid that leaks from the core and spreads through white matter.

It runs between the fibres of white matter, which gives it fingers; cortex, deep grey matter and the
dense fibres of the corpus callosum take up little.
"""

from dataclasses import replace

import numpy as np

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import smooth_step
from gliomoe.data_shards.phantom.tumour.diffusion import diffuse, face_diffusivity

_GREY = 0.04
_CALLOSUM = 0.15
"""Diffusivity of fluid over that in loose white matter."""
_CALLOSUM_MM = 10.0
"""Its half-width."""


def spread_fluid(core: np.ndarray, reach_mm: float, anatomy: Anatomy) -> np.ndarray:
    """Fluid around a core that leaks for a while.

    Args:
        core: [D, H, W] bool on the grid of the anatomy.
        reach_mm: How far it comes in white matter, as the root of twice the time.
        anatomy: The brain.

    Returns:
        [D, H, W] float32, 1 in the core, fading to 0 around it.
    """
    fluid = core.astype(np.float32)
    if not reach_mm:
        return fluid
    box = _box(core, reach_mm, anatomy.grid.spacing)
    dense = smooth_step(np.abs(anatomy.position[0]), _CALLOSUM_MM + 4, _CALLOSUM_MM)
    loose = replace(anatomy, wm=anatomy.wm * (1 - np.float32(1 - _CALLOSUM) * dense))
    part = replace(
        loose,
        **{name: getattr(loose, name)[box] for name in ("gm", "wm", "csf", "brain")},
        position=loose.position[(slice(None), *box)],
    )
    faces = face_diffusivity(part, 1.0, _GREY)
    time = reach_mm**2 / 2
    fluid[box] = diffuse(fluid[box], faces, time, anatomy.grid.spacing, source=core[box])
    return np.clip(fluid, 0, 1)


def _box(core: np.ndarray, reach_mm: float, spacing: float) -> tuple[slice, ...]:
    """The part of the grid that fluid can reach in a noticeable amount."""
    margin = int(np.ceil(2.2 * reach_mm / spacing))
    places = [np.flatnonzero(core.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(max(p[0] - margin, 0), p[-1] + margin + 1) for p in places)
