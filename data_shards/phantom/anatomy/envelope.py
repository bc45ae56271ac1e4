"""What a skull-stripped brain carries along: vessels in its sulci, venous sinuses, shreds of dura.

Notable: they make the tails of real histograms: bright in T1ce, dark in T2 and FLAIR. Vessels are
thin tubes where two smooth random fields are both near 0; how dense, and how much dura a skull
stripper leaves, is chosen so that the tails have the weight of real ones.
"""

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, smooth_noise, smooth_step

_TUBE_SCALE_MM = 4.0
_TUBE_RADIUS_MM = 1.2
_VESSEL_DEPTH_MM = (24.0, 14.0)
"""Where they have ended, and from where outwards they are all there."""
_SINUS_SHARE = 0.7
_SINUS_DEPTH_MM = (14.0, 6.0)
_DURA_MM = 2.2
_DURA_LEFT = (-0.5, 1.5)
"""From a third of the surface to nearly all, in standard deviations."""


def envelope(anatomy: Anatomy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shares of vessels and of dura, which take the place of CSF.

    Args:
        anatomy: The brain on the grid to render.
        rng: Source of their courses.

    Returns:
        `vessel` and `dura` → [D, H, W] float32 shares, together at most the share of CSF.
    """
    grid, csf = anatomy.grid, anatomy.csf
    first, second, patches = (
        MODEL_GRID.resample(field, grid) for field in smooth_noise(rng, _TUBE_SCALE_MM, channels=3)
    )
    left_on = rng.uniform(*_DURA_LEFT)
    blur = max(grid.spacing, 1.0) / 2
    depth = _depth(anatomy)
    far = np.maximum(np.abs(first), np.abs(second)) * np.float32(_TUBE_SCALE_MM)
    tubes = smooth_step(far, _TUBE_RADIUS_MM + blur, _TUBE_RADIUS_MM - blur)
    # They run at the surface and at the base of the brain, hardly in the ventricles.
    tubes *= smooth_step(depth, *_VESSEL_DEPTH_MM)
    x, y, z = anatomy.position
    midline = smooth_step(np.abs(x), 5, 2.5) * ((z > 25) | (y < -65))
    sinus = np.float32(_SINUS_SHARE) * midline * smooth_step(depth, *_SINUS_DEPTH_MM)
    vessel = np.maximum(tubes, sinus) * csf
    dura = _rim(anatomy) * smooth_step(patches, -left_on - 0.3, -left_on + 0.3) * (csf - vessel)
    return {"vessel": vessel, "dura": dura}


def _depth(anatomy: Anatomy) -> np.ndarray:
    """About the distance from the edge of the brain, mm, good for what lies deep; float32."""
    step = max(round(MODEL_GRID.spacing / anatomy.grid.spacing), 1)
    coarse = anatomy.brain[::step, ::step, ::step]
    spacing = step * anatomy.grid.spacing
    depth = ndimage.distance_transform_edt(coarse).astype(np.float32) * np.float32(spacing)
    part = Grid(coarse.shape, spacing, anatomy.grid.origin)
    return part.resample(depth, anatomy.grid)


def _rim(anatomy: Anatomy) -> np.ndarray:
    """Share of the outermost `_DURA_MM` of the brain in each voxel."""
    # Across a plane edge a blurred mask rises from a half, by the error function of the distance.
    sigma = max(_DURA_MM, anatomy.grid.spacing)
    share = ndimage.gaussian_filter(
        anatomy.brain.astype(np.float32), sigma / anatomy.grid.spacing, truncate=2.5
    )
    edge = anatomy.grid.spacing / sigma / 2
    outermost = ndtr(edge), ndtr(edge + 1.0)
    return smooth_step(share, outermost[1], outermost[0]) * np.float32(_DURA_MM / sigma)
