"""Diseases other than glioma, so that an unlabelled cohort is not all tumours."""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, smooth_noise, smooth_step

_VOXEL_ML = MODEL_GRID.spacing**3 / 1000


def white_matter_lesions(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Scattered lesions of white matter, most of them around the ventricles.

    Args:
        anatomy: The brain on the model grid.
        rng: Source of load and places.

    Returns:
        [D, H, W] float32 share of diseased tissue, 2 to 30 ml in all.
    """
    depth = ndimage.distance_transform_edt(anatomy.brain) * MODEL_GRID.spacing
    ventricles = (anatomy.csf > 0.5) & (depth > 15)
    distance = ndimage.distance_transform_edt(~ventricles) * MODEL_GRID.spacing
    liability = smooth_noise(rng, 2.6) + 1.5 * np.exp(-distance.astype(np.float32) / 8)
    liability = np.where((anatomy.wm > 0.5) & (anatomy.position[2] > -20), liability, -10)
    load = np.clip(rng.lognormal(np.log(8), 0.7), 2, 30)
    return _largest(liability, load) * anatomy.wm


def stroke(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """An infarct of one side in the territory of the middle cerebral artery.

    Args:
        anatomy: The brain on the model grid.
        rng: Source of side, place and size.

    Returns:
        [D, H, W] float32 share of infarcted tissue, 10 to 120 ml in all.
    """
    x, y, z = anatomy.position
    side = 1 if rng.random() < 0.5 else -1
    centre = rng.normal((46, -18, 14), (6, 14, 10))
    far = np.sqrt((side * x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    liability = -far / 12 + 0.6 * smooth_noise(rng, 6.0)
    liability = np.where(anatomy.brain & (anatomy.csf < 0.6) & (side * x > 4), liability, -100)
    return _largest(liability, np.clip(rng.lognormal(np.log(40), 0.6), 10, 120))


def _largest(liability: np.ndarray, volume_ml: float) -> np.ndarray:
    """Membership of the voxels of highest liability that make up a volume."""
    count = max(int(volume_ml / _VOXEL_ML), 1)
    bound = np.partition(liability.ravel(), -count)[-count]
    return smooth_step(liability, bound - 0.15, bound + 0.15)
