"""Mass effect: tissue that moves out of the way of a growing tumour.

The displacement is the exponential of a stationary velocity (Arsigny et al., MICCAI 2006), so that
it does not fold. It points away from the core and, less, from oedema; it vanishes at the skull.
"""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.grid import MODEL_GRID, WARP_GRID, flow, smooth_step

_SPREAD_MM = 12.0
"""Over which displacement fades away from the tumour."""
_OEDEMA = 0.25
"""Mass of a volume of oedema over that of core. Chosen: mass effect is seen around both."""
_SKULL_MM = 9.0
"""Depth from which tissue moves freely."""


def displace(core: np.ndarray, fluid: np.ndarray, depth: np.ndarray, strength: float) -> np.ndarray:
    """Displacement by a tumour.

    Args:
        core: [D, H, W] bool on the model grid.
        fluid: [D, H, W] 0 to 1, oedema.
        depth: [D, H, W] mm below the surface of the brain.
        strength: Largest displacement over the radius of a ball of the tumour's mass. 0.1 to 0.3
            shift the mid-line by 0 to some 10 mm, as is seen in glioblastoma.

    Returns:
        [3, D, H, W] mm: tissue seen at x came from x - displacement(x).
    """
    mass = np.where(core, np.float32(1), np.float32(_OEDEMA) * fluid)
    radius = (3 * float(mass.sum()) * MODEL_GRID.spacing**3 / (4 * np.pi)) ** (1 / 3)
    sigma = _SPREAD_MM / MODEL_GRID.spacing
    slope = np.stack(np.gradient(ndimage.gaussian_filter(mass.astype(np.float32), sigma)))
    slope *= np.float32(strength * radius) / np.sqrt((slope**2).sum(0)).max()
    slope *= smooth_step(depth, 0, _SKULL_MM)
    # The slope points inwards: along it lies where tissue came from.
    return -WARP_GRID.resample(flow(MODEL_GRID.resample(slope, WARP_GRID)), MODEL_GRID)
