"""Diseases other than glioma, so that an archive is not all tumours; and what age brings."""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import MODEL_GRID, smooth_noise, smooth_step

_VOXEL_ML = MODEL_GRID.spacing**3 / 1000

_AGES = (35.0, 45.0, 62.0, 80.0)
_MEDIAN_ML = (0.04, 0.5, 3.4, 9.0)
_SPREAD = 0.8
"""Median volume by age and the deviation of its logarithm: from the middle of the forties it grows
exponentially, and so does its spread (de Kort et al., Neurobiol Aging 2025). Chosen so that the
mean between 60 and 64 is the 4.9 ml of Wen and Sachdev, NeuroImage 2004."""

_LEAST_ML = 0.1
"""Volume below which there is nothing to see."""

_AROUND_VENTRICLES = 0.6
"""Share of the volume in caps and bands, the rest in dots; a choice."""

_DOT_MM = (4.5, 0.4)
"""Median diameter of a dot and the deviation of its logarithm, chosen so that there are about 20 at
the age of 62; none lies within 4 mm of the cortex (Wen and Sachdev)."""

_SPARED_MM = 4.0


def ageing_lesions(anatomy: Anatomy, rng: np.random.Generator, age: float) -> np.ndarray:
    """White-matter hyperintensities that come with age.

    Args:
        anatomy: The brain on the model grid.
        rng: Source of load and places.
        age: Years.

    Returns:
        [D, H, W] float32 share of diseased tissue: caps on the horns of the lateral ventricles,
        bands along them and dots in deep white matter. Nearly nothing below 35 years.
    """
    median = np.exp(np.interp(age, _AGES, np.log(_MEDIAN_ML)))
    load = float(min(rng.lognormal(np.log(median), _SPREAD), 40))
    around = np.clip(rng.normal(_AROUND_VENTRICLES, 0.12), 0.2, 0.9)
    noise = smooth_noise(rng, 3.0)
    if load < _LEAST_ML:
        return np.zeros(MODEL_GRID.shape, np.float32)
    _, y, _ = anatomy.position
    horns = np.maximum(smooth_step(y, 8, 22), smooth_step(y, -42, -56))
    near = np.exp(-_from_ventricles(anatomy) / np.float32(4))
    liability = near * (1 + horns) + 0.15 * noise
    liability = np.where(anatomy.wm > 0.4, liability, -10)
    caps = _largest(liability, load * around, anatomy.wm)
    dots = _dots(anatomy, rng, load * (1 - around))
    return np.maximum(caps, dots) * anatomy.wm


def white_matter_lesions(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Confluent lesions of white matter, most of them around the ventricles.

    Args:
        anatomy: The brain on the model grid.
        rng: Source of load and places.

    Returns:
        [D, H, W] float32 share of diseased tissue, 2 to 30 ml in all: from what the healthy have at
        60 years to three times what they have at 80; a choice.
    """
    liability = smooth_noise(rng, 2.6) + 1.5 * np.exp(-_from_ventricles(anatomy) / np.float32(8))
    liability = np.where((anatomy.wm > 0.5) & (anatomy.position[2] > -20), liability, -10)
    load = float(np.clip(rng.lognormal(np.log(8), 0.7), 2, 30))
    return _largest(liability, load, anatomy.wm) * anatomy.wm


def stroke(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """An infarct of one side in the territory of the middle cerebral artery.

    Args:
        anatomy: The brain on the model grid.
        rng: Source of side, place and size.

    Returns:
        [D, H, W] float32 share of infarcted tissue, 10 to 120 ml in all: from one branch to half of
        the territory; a choice.
    """
    x, y, z = anatomy.position
    side = 1 if rng.random() < 0.5 else -1
    centre = rng.normal((46, -18, 14), (6, 14, 10))
    # A territory is a wedge that widens towards the surface.
    reach = 12 * (1 + 0.5 * smooth_step(side * x, 25, 60))
    far = np.sqrt((side * x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    liability = -far / reach + 0.6 * smooth_noise(rng, 6.0)
    solid = 1 - anatomy.csf
    liability = np.where(anatomy.brain & (solid > 0.4) & (side * x > 4), liability, -100)
    load = float(np.clip(rng.lognormal(np.log(40), 0.6), 10, 120))
    return _largest(liability, load, solid)


def _from_ventricles(anatomy: Anatomy) -> np.ndarray:
    """Distance from the lateral ventricles, [D, H, W] float32 mm."""
    x, y, z = anatomy.position
    # The box leaves out the insula and the fissures; of what else holds fluid the largest counts.
    inner = (np.abs(x) < np.where(y > -30, 26, 40)) & (np.abs(y + 14) < 50) & (np.abs(z - 10) < 22)
    ventricles = np.zeros(MODEL_GRID.shape, bool)
    for half in (x < -2, x > 2):
        regions, count = ndimage.label((anatomy.csf > 0.5) & inner & half)
        if count:
            ventricles |= regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])
    distance = ndimage.distance_transform_edt(~ventricles) * MODEL_GRID.spacing
    return distance.astype(np.float32)


def _dots(anatomy: Anatomy, rng: np.random.Generator, volume_ml: float) -> np.ndarray:
    """Balls in deep white matter that make up a volume, [D, H, W] float32."""
    share = np.zeros(MODEL_GRID.shape, np.float32)
    edge = ndimage.distance_transform_edt(anatomy.wm > 0.5) * MODEL_GRID.spacing
    deep = np.argwhere((edge > _SPARED_MM) & (anatomy.position[2] > -5))
    if not len(deep):
        return share
    while volume_ml > 0:
        radius = 0.5 * float(min(rng.lognormal(np.log(_DOT_MM[0]), _DOT_MM[1]), 12))
        centre = deep[rng.integers(len(deep))] + rng.uniform(-0.5, 0.5, 3)
        reach = radius / MODEL_GRID.spacing + 1
        box = tuple(slice(max(int(place - reach), 0), int(place + reach) + 2) for place in centre)
        grid = np.ogrid[box]
        away = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)))
        ball = smooth_step(away * MODEL_GRID.spacing - radius, 1.5, -1.5)
        # A ball smaller than a voxel keeps its volume.
        size = 4 / 3 * np.pi * radius**3 / 1000
        ball *= np.float32(min(size / max(float(ball.sum()) * _VOXEL_ML, 1e-9), 1))
        share[box] = np.maximum(share[box], ball)
        volume_ml -= size
    return share


def _largest(liability: np.ndarray, volume_ml: float, tissue: np.ndarray) -> np.ndarray:
    """Membership of the voxels of highest liability whose tissue makes up a volume."""
    order = np.argsort(liability, axis=None, kind="stable")[::-1]
    volumes = np.cumsum(tissue.ravel()[order], dtype=np.float64) * _VOXEL_ML
    last = order[min(int(np.searchsorted(volumes, volume_ml)), len(order) - 1)]
    bound = liability.ravel()[last]
    return smooth_step(liability, bound - 0.15, bound + 0.15)
