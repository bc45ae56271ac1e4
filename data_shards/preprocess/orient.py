"""Axes along R, A, S, as nearly as they can be without resampling; always the first step."""

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from gliomoe.data_shards.preprocess.case import Series


def to_ras(series: Series) -> Series:
    """A series with its axes along R, A, S: every voxel keeps its value and its place in space."""
    orientation = io_orientation(series.affine)
    affine = series.affine @ inv_ornt_aff(orientation, series.data.shape)
    data = np.ascontiguousarray(apply_orientation(series.data, orientation))
    return Series(data, affine)
