"""What a skull-stripped brain carries along: vessels in its sulci, venous sinuses, shreds of dura.

Notable: they make the tails of real histograms: bright in T1ce, dark in T2 and FLAIR. Vessels are
thin tubes where two smooth random fields are both near 0; how dense, and how much dura a skull
stripper leaves, is chosen so that the tails have the weight of real ones.
"""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, smooth_noise, smooth_step

_TUBE_SCALE_MM = 5.0
_TUBE_RADIUS_MM = 0.9
_SINUS_SHARE = 0.7
_DURA_MM = 1.2
_DURA_SCALE_MM = 6.0


def envelope(anatomy: Anatomy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shares of vessels and of dura, which take the place of CSF.

    Args:
        anatomy: The brain on the grid to render.
        rng: Source of their courses.

    Returns:
        `vessel` and `skull` (the dark of dura and inner table) → [D, H, W] float32 shares, together
        at most the share of CSF.
    """
    first, second, patches = (
        MODEL_GRID.resample(field, anatomy.grid)
        for field in smooth_noise(rng, _TUBE_SCALE_MM, channels=3)
    )
    csf = anatomy.csf
    blur = max(anatomy.grid.spacing, 1.0) / 2
    far = np.maximum(np.abs(first), np.abs(second)) * np.float32(_TUBE_SCALE_MM)
    tubes = smooth_step(far, _TUBE_RADIUS_MM + blur, max(_TUBE_RADIUS_MM - blur, 0))
    depth = _depth(anatomy)
    # Larger vessels run at the surface and at the base of the brain, none in the ventricles.
    tubes *= smooth_step(depth, 22, 12)
    x, y, z = anatomy.position
    midline = smooth_step(np.abs(x), 5, 2.5) * ((z > 25) | (y < -65))
    vessel = np.maximum(tubes, np.float32(_SINUS_SHARE) * midline * smooth_step(depth, 14, 6)) * csf
    left = rng.uniform(0.0, 1.2)  # how much this brain's skull stripping has left on
    rim = smooth_step(depth, _DURA_MM + blur, max(_DURA_MM - blur, 0.2))
    dura = rim * smooth_step(patches, 1.6 - left, 2.2 - left) * (csf - vessel)
    return {"vessel": vessel, "skull": dura}


def _depth(anatomy: Anatomy) -> np.ndarray:
    """Distance from the edge of the brain, mm, float32."""
    return ndimage.distance_transform_edt(anatomy.brain).astype(np.float32) * np.float32(
        anatomy.grid.spacing
    )
