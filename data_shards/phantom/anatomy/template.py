"""The MNI152 template of the phantoms: its tissue maps, and what is derived from them once.

Notable: the maps are the mean of 152 heads, so that a voxel of the cortex is grey in some heads and
fluid in others. Fluid is decided for by sharpening its odds, once for the narrow sulci of the young
and once for the wide ones of the old; grey or white matter is left to the folding of each subject.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.mni import BRAIN_T1, mni_map
from gliomoe.data_shards.phantom.grid import FWHM_PER_SIGMA, Grid

_MARGIN = 12
"""Voxels around the brain, more than any blur reaches."""

_SHARPENING = 4.0
"""Power of the odds of fluid: 4 makes of an edge of 6 mm one of 1.5 mm."""

_YOUNG, _OLD = 0.51, 0.49
"""Share of fluid in the mean of heads from which on a young and an old head has fluid there."""


def tissue_maps(spacing: float) -> tuple[Grid, np.ndarray]:
    """Grey matter, white matter and brain mask of MNI152, blurred for a voxel size.

    Args:
        spacing: Voxel size in mm of the images to be rendered.

    Returns:
        The template's grid at 1 mm and [3, D, H, W] float32 shares.
    """
    grid, maps = _template()
    return grid, _blurred(maps, spacing)


@lru_cache(maxsize=2)
def individual_maps(spacing: float) -> tuple[Grid, np.ndarray]:
    """What a subject's tissue is made from, blurred for a voxel size.

    Args:
        spacing: Voxel size in mm of the images to be rendered.

    Returns:
        The template's grid at 1 mm and [4, D, H, W] float32: brain mask, share of white matter in
        the solid tissue, share of fluid in a young and in an old head.
    """
    grid, (gm, wm, inside) = _template()
    fluid = np.clip(1 - gm - wm, 0, 1) * inside
    ageing = [_decided(fluid, threshold) * inside for threshold in (_YOUNG, _OLD)]
    white = _blurred(np.stack([wm, gm + wm]), spacing)
    white = white[0] / np.maximum(white[1], 1e-3)
    seen = _blurred(np.stack([inside, *ageing]), spacing)
    # At the brain's edge, shares of the voxel become shares of what of it is brain.
    young, old = seen[1:] / np.maximum(seen[0], 0.1)
    return grid, np.stack([seen[0], white, young, old])


def _decided(share: np.ndarray, threshold: float) -> np.ndarray:
    """A share with sharpened odds, 0.5 at the threshold."""
    odds = (np.clip(share, 0, 1) / threshold) ** np.float32(_SHARPENING)
    against = ((1 - np.clip(share, 0, 1)) / (1 - threshold)) ** np.float32(_SHARPENING)
    return odds / (odds + against)


def _blurred(maps: np.ndarray, spacing: float) -> np.ndarray:
    """Maps of 1 mm, as voxels of a larger size see them."""
    if spacing <= 1:
        return maps
    sigma = np.sqrt(spacing**2 - 1) / FWHM_PER_SIGMA
    return np.stack([ndimage.gaussian_filter(field, sigma) for field in maps])


@lru_cache(maxsize=1)
def _template() -> tuple[Grid, np.ndarray]:
    """The maps that nilearn ships, [3, D, H, W], cut to the brain."""
    t1, gm, wm = (mni_map(name) for name in ("t1", "gm", "wm"))
    brain = ndimage.binary_fill_holes(np.asarray(t1.dataobj) > BRAIN_T1)
    box = ndimage.find_objects(brain.astype(np.int8))[0]
    maps = np.stack([np.asarray(image.dataobj)[box] / np.float32(255) for image in (gm, wm)])
    brain = brain[box].astype(np.float32)
    maps = np.stack([*(maps * brain), brain])
    maps = np.pad(maps, [(0, 0), *[(_MARGIN, _MARGIN)] * 3])
    origin = t1.affine[:3, 3] + [side.start - _MARGIN for side in box]
    return Grid(maps.shape[1:], 1.0, tuple(float(place) for place in origin)), maps
