"""From the grid of a study back to that of one of its files."""

import numpy as np

from gliomoe.data_shards.nifti import Volume
from gliomoe.data_shards.preprocess.resample import resample_image, resample_labels


def to_native(array: np.ndarray, affine: np.ndarray, reference: Volume, labels: bool) -> np.ndarray:
    """A result on a study's grid, on the grid and in the orientation of a reference series.

    Args:
        array: [D, H, W], labels or an image.
        affine: [4, 4], voxel → RAS+ mm of `array`.
        reference: The series, as read from its file.
        labels: Whether `array` holds labels; an image becomes float32.

    Returns:
        Array of the reference's size, 0 outside the study's grid.
    """
    shape = reference.data.shape
    if labels:
        return resample_labels(array, affine, reference.affine, shape)
    everywhere = np.ones(array.shape, bool)
    return resample_image(array.astype(np.float32), everywhere, affine, reference.affine, shape)[0]
