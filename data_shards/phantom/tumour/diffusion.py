"""Diffusion through tissue: what is permeable, what is a barrier, and steps in time.

Notable: all steps conserve what diffuses. Long diffusion takes the super-steps of the
Runge-Kutta-Legendre scheme (Meyer et al., J Comput Phys 2014): s evaluations cover (s2 + s) / 2
explicit steps and stay stable.
"""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import smooth_step

_STEPS = 6
"""Super-steps of any diffusion; more stages make them longer. Chosen so that errors stay small."""
_SAFETY = 7.0
"""Explicit steps are stable up to spacing^2 / (6 diffusivity)."""
_ACROSS = 0.8
"""How much lower diffusivity is across the edge of white matter than along it, at most."""


def face_diffusivity(anatomy: Anatomy, white: float, grey: float) -> list[np.ndarray]:
    """Diffusivity between neighbours along each axis.

    Across the edge of white matter it is lower than along it. It is 0 into CSF and through the
    falx and the tentorium; a face takes the harmonic mean of its two voxels, so that any barrier
    closes it.

    Args:
        anatomy: The brain.
        white: Diffusivity in white matter, mm2 per unit of time.
        grey: In grey matter.

    Returns:
        Per axis [D, H, W] less one along that axis, float32.
    """
    slope = np.stack(np.gradient(ndimage.gaussian_filter(anatomy.wm, 1.0)))
    norm = (slope**2).sum(0) + np.float32(2e-3)
    tissue = np.float32(white) * anatomy.wm + np.float32(grey) * anatomy.gm
    tissue *= smooth_step(anatomy.csf, 0.6, 0.3) * ~dura(anatomy)
    faces = []
    for axis in range(3):
        along = tissue * (1 - np.float32(_ACROSS) * slope[axis] ** 2 / norm)
        first, second = np.delete(along, -1, axis), np.delete(along, 0, axis)
        faces.append(2 * first * second / np.maximum(first + second, np.float32(1e-9)))
    return faces


def dura(anatomy: Anatomy) -> np.ndarray:
    """Voxels of the falx and the tentorium, [D, H, W] bool, by their place in the template.

    The mid-line is open where it is white matter: in the corpus callosum and the brain stem. The
    tentorium is two planes that fall from the straight sinus to the sides, behind the notch.
    """
    x, y, z = anatomy.position
    width = anatomy.grid.spacing
    falx = (np.abs(x) < width) & (anatomy.wm < 0.5)
    roof = np.minimum(0.3 * (y + 45), 0) - 0.45 * np.abs(x) - 0.6 * np.clip(y + 55, 0, 25)
    behind = (y < -45) | ((y < -32) & (np.abs(x) > 22))
    return falx | ((np.abs(z - roof) < width) & behind & (anatomy.wm < 0.8))


def divergence(field: np.ndarray, faces: list[np.ndarray], spacing: float) -> np.ndarray:
    """div(D grad field) with closed outer faces.

    Args:
        field: [D, H, W] float32.
        faces: What `face_diffusivity` gave.
        spacing: mm.
    """
    out = np.zeros_like(field)
    for axis, face in enumerate(faces):
        lower, upper = _ends(axis)
        flux = field[upper] - field[lower]
        flux *= face
        out[lower] += flux
        out[upper] -= flux
    out *= np.float32(1 / spacing**2)
    return out


def diffuse(
    field: np.ndarray,
    faces: list[np.ndarray],
    time: float,
    spacing: float,
    source: np.ndarray | None = None,
) -> np.ndarray:
    """A field after diffusion for a time.

    Args:
        field: [D, H, W] float32 at the start.
        faces: What `face_diffusivity` gave.
        time: In the unit of the diffusivity.
        spacing: mm.
        source: [D, H, W] bool, where the field is held, or None.
    """
    fastest = max(float(face.max()) for face in faces)
    explicit = time / _STEPS * fastest * _SAFETY / spacing**2
    stages = max(int(np.ceil((np.sqrt(1 + 8 * explicit) - 1) / 2)), 1)
    open_to_change = np.float32(1) if source is None else ~source
    for _ in range(_STEPS):
        field = _super_step(field, faces, time / _STEPS, stages, spacing, open_to_change)
    return field


def _super_step(
    field: np.ndarray,
    faces: list[np.ndarray],
    time: float,
    stages: int,
    spacing: float,
    open_to_change: np.ndarray | np.float32,
) -> np.ndarray:
    """One step of RKL1."""
    weight = np.float32(2 * time / (stages**2 + stages))
    before = field
    now = field + weight * open_to_change * divergence(field, faces, spacing)
    for stage in range(2, stages + 1):
        lead, lag = np.float32((2 * stage - 1) / stage), np.float32((1 - stage) / stage)
        change = open_to_change * divergence(now, faces, spacing)
        before, now = now, lead * (now + weight * change) + lag * before
    return now


def _ends(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the last, and all but the first, along an axis."""
    lower, upper = [slice(None)] * 3, [slice(None)] * 3
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    return tuple(lower), tuple(upper)
