"""Step `crop`: the box around the tissue of all series, and around the labels."""

import numpy as np

from gliomoe.data_shards.box import bounding_box
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig


def crop(case: Case, config: PreprocessConfig) -> Case:
    """Cut every series to one box; the affine follows."""
    wanted = [_tissue(one) for one in case.series.values()]
    if case.seg is not None:
        wanted.append(case.seg.data > 0)
    box = bounding_box(np.logical_or.reduce(wanted))
    what = {"start": [side.start for side in box], "stop": [side.stop for side in box]}
    return case.map(lambda series: _cut(series, box)).noted("crop", what)


def _tissue(series: Series) -> np.ndarray:
    """Where a series shows tissue."""
    return series.data != 0 if series.mask is None else series.mask


def _cut(series: Series, box: tuple[slice, ...]) -> Series:
    """A series inside a box."""
    affine = series.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    mask = None if series.mask is None else series.mask[box]
    return Series(np.ascontiguousarray(series.data[box]), affine, mask)
