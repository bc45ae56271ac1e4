"""Step `grid`: every series on the frame of the best-resolved one, at the wanted spacing."""

from dataclasses import replace

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig
from gliomoe.data_shards.preprocess.resample import resample_image, resample_labels, same_grid
from gliomoe.data_shards.sequences import SEQUENCES

_SAME_SPACING = 1e-3
"""mm by which a spacing may miss the wanted one and the voxels stay as they are."""


def grid(case: Case, config: PreprocessConfig) -> Case:
    """Resample by the headers' positions; series that already lie on the grid stay untouched.

    Raises:
        DataError: If a series does not overlap the frame of the best-resolved one.
    """
    reference = best_resolved(case.series)
    affine, shape = _target(case.series[reference], config.spacing)
    series, moved = {}, []
    for name, one in case.series.items():
        if same_grid(one.affine, one.data.shape, affine, shape):
            series[name] = replace(one, affine=affine)
            continue
        mask = np.ones(one.data.shape, bool) if one.mask is None else one.mask
        data, inside = resample_image(one.data, mask, one.affine, affine, shape)
        if not inside.any():
            raise DataError(f"{name} does not overlap {reference} in space; check their headers")
        series[name] = Series(data, affine, inside)
        moved.append(name)
    seg = case.seg
    if seg is not None and not same_grid(seg.affine, seg.data.shape, affine, shape):
        seg = Series(resample_labels(seg.data, seg.affine, affine, shape), affine)
        moved.append("seg")
    elif seg is not None:
        seg = replace(seg, affine=affine)
    what = {"reference": reference, "shape": list(shape), "resampled": moved}
    return Case(series, seg, case.history).noted("grid", what)


def best_resolved(series: dict[str, Series]) -> str:
    """The series with the least thick voxels, then the smallest, then the first of `SEQUENCES`."""

    def coarseness(name: str) -> tuple[float, float, int]:
        spacing = series[name].spacing
        return (
            round(float(spacing.max()), 2),
            round(float(spacing.prod()), 3),
            SEQUENCES.index(name),
        )

    return min(series, key=coarseness)


def _target(series: Series, spacing: float | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and size of a grid over the same field of view, centred on it."""
    if spacing is None or np.abs(series.spacing - spacing).max() <= _SAME_SPACING:
        return series.affine, series.data.shape
    step = spacing / series.spacing
    sides = np.array(series.data.shape)
    shape = np.maximum(1, np.round(sides / step)).astype(int)
    first = ((sides - 1) - (shape - 1) * step) / 2
    to_old = np.diag([*step, 1.0])
    to_old[:3, 3] = first
    return series.affine @ to_old, tuple(shape.tolist())
