"""Step `n4`: the slow change of brightness that receive coils make is divided out.

Notable: Tustison et al., "N4ITK: improved N3 bias correction" (2010), on a coarse copy; the field
is smooth, so that it is the same at full resolution.
"""

from dataclasses import replace

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.background import is_masked, tissue_mask
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig
from gliomoe.data_shards.preprocess.resample import resample_image
from gliomoe.data_shards.preprocess.world import coarse, from_sitk, one_thread, to_sitk

QUANTITATIVE = ("adc", "asl")
"""Sequences whose values mean something by themselves."""

_ITERATIONS = (30, 30, 20)
_LIMIT = 4.0
"""A field stronger than this, or weaker than its inverse, is held there."""


def n4(case: Case, config: PreprocessConfig) -> Case:
    """Correct the series that need it."""
    series, notes = {}, {}
    for name, one in case.series.items():
        if not _wanted(name, one, config.n4.mode):
            series[name] = one
            continue
        tissue = tissue_mask(one.data) if one.mask is None else one.mask
        field = _field(name, one, tissue, config.n4.grid)
        series[name] = replace(one, data=one.data / field)
        spread = np.percentile(field[tissue], (1, 99))
        notes[name] = {"field": [round(float(part), 3) for part in spread]}
    return Case(series, case.seg, case.history).noted("n4", {"corrected": notes})


def _wanted(name: str, series: Series, mode: str) -> bool:
    """Whether a series is to be corrected."""
    if mode == "auto":
        # A mask is known by now where the brain was cut out of a head.
        return name not in QUANTITATIVE and (series.mask is not None or not is_masked(series.data))
    return mode == "on"


@one_thread()
def _field(name: str, series: Series, tissue: np.ndarray, spacing: float) -> np.ndarray:
    """The field at the voxels of a series, [D, H, W] float32, 1 in the middle of its range.

    Args:
        name: Its sequence, for messages.
        series: Any.
        tissue: [D, H, W] bool, where it shows tissue.
        spacing: Voxel size in mm of the copy on which it is found.
    """
    import SimpleITK as sitk

    copy = coarse(series, spacing)
    share, _ = resample_image(
        tissue.astype(np.float32),
        np.ones(series.data.shape, bool),
        series.affine,
        copy.affine,
        copy.data.shape,
    )
    lit = (share >= 0.5) & (copy.data > 0)
    if not lit.any():
        raise DataError(f"{name} has no positive intensities to correct; --n4.mode off leaves them")
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetMaximumNumberOfIterations(_ITERATIONS)
    image = to_sitk(np.maximum(copy.data, 0), copy.affine)
    filter_.Execute(image, to_sitk(lit, copy.affine))
    log = from_sitk(filter_.GetLogBiasFieldAsImage(image))
    log = np.clip(log - np.median(log[lit]), -np.log(_LIMIT), np.log(_LIMIT))
    fine, inside = resample_image(
        np.exp(log).astype(np.float32),
        np.ones(log.shape, bool),
        copy.affine,
        series.affine,
        series.data.shape,
    )
    return np.where(inside, fine, np.float32(1))
