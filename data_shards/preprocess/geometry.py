"""Headers that contradict each other are refused before anything is moved by them."""

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.grid import best_resolved
from gliomoe.data_shards.preprocess.resample import same_grid

_MAX_FIELD_MM = 1000.0
"""Longest side of a field of view; no head needs half of it."""

_MAX_RATIO = 3.0
"""Between the voxel sizes of two series of the same number of voxels."""

_NEAR = 0.5
"""Voxels by which labels may miss the grid of the series whose size they have."""


def check_geometry(case: Case) -> None:
    """Compare sizes, spacings and places of the series and the labels of a study.

    Args:
        case: As read, its axes along R, A, S.

    Raises:
        DataError: If a field of view is impossible, two series of one size differ much in spacing,
            or the labels lie on the grid of no series and not within the images either.
    """
    names = list(case.series)
    for name, one in case.series.items():
        field = one.spacing * one.data.shape
        if field.max() > _MAX_FIELD_MM:
            raise DataError(
                f"{name} has voxels of {_mm(one)} mm and so a field of view of {field.max():.0f} "
                "mm; repair its header"
            )
        for other in names[names.index(name) + 1 :]:
            second = case.series[other]
            ratio = one.spacing / second.spacing
            if one.data.shape == second.data.shape and max(*ratio, *(1 / ratio)) > _MAX_RATIO:
                raise DataError(
                    f"{name} and {other} have the same size but voxels of {_mm(one)} and "
                    f"{_mm(second)} mm; repair the header that is wrong"
                )
    if case.seg is not None:
        _check_labels(case, case.seg)


def _check_labels(case: Case, seg: Series) -> None:
    """Refuse labels whose header places them where no series says that they belong."""
    sizes = {name: one.data.shape for name, one in case.series.items()}
    alike = [name for name, size in sizes.items() if size == seg.data.shape]
    if alike:
        if not any(_nearly_on(seg, case.series[name]) for name in alike):
            raise DataError(
                f"the segmentation has the size of {' and '.join(alike)} but lies elsewhere in "
                "space; repair its header"
            )
        return
    turned = [name for name, size in sizes.items() if sorted(size) == sorted(seg.data.shape)]
    if turned:
        raise DataError(
            f"the segmentation has the size of {turned[0]} with its axes exchanged; save it again "
            "on the grid of that series"
        )
    reference = best_resolved(case.series)
    places = np.argwhere(seg.data > 0)
    if len(places) and _share_within(places, seg, case.series[reference]) < 0.5:
        raise DataError(f"most labels lie outside of {reference}; check the segmentation's header")


def _nearly_on(seg: Series, series: Series) -> bool:
    """Whether labels have the voxels of a series, to half of one."""
    if same_grid(seg.affine, seg.data.shape, series.affine, series.data.shape):
        return True
    mapping = np.linalg.inv(series.affine) @ seg.affine
    ends = np.array([np.zeros(3), np.array(seg.data.shape) - 1])
    return bool(np.abs(ends @ mapping[:3, :3].T + mapping[:3, 3] - ends).max() <= _NEAR)


def _share_within(places: np.ndarray, seg: Series, series: Series) -> float:
    """Share of voxels of the labels, [N, 3], that lie in the field of view of a series."""
    mapping = np.linalg.inv(series.affine) @ seg.affine
    there = places @ mapping[:3, :3].T + mapping[:3, 3]
    return float(((there > -0.5) & (there < np.array(series.data.shape) - 0.5)).all(axis=1).mean())


def _mm(series: Series) -> str:
    """Voxel size as people write it."""
    return " x ".join(f"{side:.3g}" for side in series.spacing)
