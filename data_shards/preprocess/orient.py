"""Step `orient`: axes along R, A, S, as nearly as they can be without resampling."""

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig


def orient(case: Case, config: PreprocessConfig) -> Case:
    """Permute and flip axes; every voxel keeps its value and its place in space."""
    return case.map(to_ras).noted("orient", "RAS")


def to_ras(series: Series) -> Series:
    """A series with its axes along R, A, S."""
    orientation = io_orientation(series.affine)
    affine = series.affine @ inv_ornt_aff(orientation, series.data.shape)
    data = np.ascontiguousarray(apply_orientation(series.data, orientation))
    return Series(data, affine)
