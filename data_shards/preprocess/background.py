"""Step `background`: what is air becomes exactly 0.

Notable: a volume whose outermost voxels are 0 has been masked already and keeps every voxel.
Otherwise the head is what exceeds 10 % of the robust range (the first threshold of BET: Smith,
"Fast robust automated brain extraction", 2002), made whole. The skull stays.
"""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.box import bounding_box
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig

_MASKED = 0.97
"""Share of zeros in the outermost voxels of a masked volume."""

_THRESHOLD = 0.1
_CLOSING = 2


def background(case: Case, config: PreprocessConfig) -> Case:
    """Find the head in every series that has no mask yet and set the rest to 0.

    Raises:
        DataError: If a series shows no tissue.
    """
    series, shares = {}, {}
    for name, one in case.series.items():
        if one.mask is not None:  # the brain was extracted
            series[name] = one
            continue
        mask = tissue_mask(one.data)
        if not mask.any():
            raise DataError(f"{name} shows no tissue; leave it out")
        series[name] = Series(np.where(mask, one.data, np.float32(0)), one.affine, mask)
        shares[name] = round(float(mask.mean()), 4)
    return Case(series, case.seg, case.history).noted("background", {"tissue_share": shares})


def tissue_mask(data: np.ndarray) -> np.ndarray:
    """Where there is tissue, holes included.

    Args:
        data: [D, H, W] float32, axes along R, A, S.

    Returns:
        [D, H, W] bool.
    """
    if is_masked(data):
        mask = data != 0
        if mask.any():
            box = bounding_box(mask)
            mask[box] = ndimage.binary_fill_holes(mask[box])
        return mask
    low, high = np.percentile(data, (2, 98))
    mask = data > low + _THRESHOLD * (high - low)
    mask = ndimage.binary_opening(mask)
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    mask = ndimage.binary_dilation(mask, iterations=_CLOSING)
    mask = ndimage.binary_erosion(mask, iterations=_CLOSING, border_value=1)
    # Air in mouth, sinuses and ears often has a way out in 3-D but not in an axial slice.
    in_slice = np.zeros((3, 3, 3), bool)
    in_slice[:, 1, 1] = in_slice[1, :, 1] = True
    return ndimage.binary_fill_holes(ndimage.binary_fill_holes(mask, in_slice))


def is_masked(data: np.ndarray) -> bool:
    """Whether the background is empty already: nearly all of the outermost voxels are 0."""
    faces = [data[[0, -1]], data[:, [0, -1]], data[:, :, [0, -1]]]
    zeros = sum(int(np.sum(face == 0)) for face in faces)
    return zeros >= _MASKED * sum(face.size for face in faces)
