"""Step `brain`: everything but the brain becomes 0, by one mask for the whole study."""

from collections.abc import Mapping

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.atlas import brain_mask
from gliomoe.data_shards.preprocess.background import is_masked, tissue_mask
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig
from gliomoe.data_shards.preprocess.external import program_mask
from gliomoe.data_shards.preprocess.resample import resample_image, resample_labels
from gliomoe.data_shards.sequences import SEQUENCES

_WHOLE_HEAD = 1.3
"""Share of the brain's volume from which on the tissue of a masked series includes a skull."""


def brain(case: Case, config: PreprocessConfig) -> Case:
    """Find the brain in the best suited series and cut it out of all that show more.

    Raises:
        DataError: If no brain is found, it has an impossible volume, or a series shows none of it.
        UsageError: If the method's program is not installed.
    """
    settings = config.brain
    heads = {name: one for name, one in case.series.items() if not is_masked(one.data)}
    if settings.method == "none" or (settings.method == "auto" and not heads):
        why = "as asked" if settings.method == "none" else "the background is empty already"
        return case.noted("brain", {"method": "none", "why": why})
    source = _best_suited(heads or case.series)
    if settings.method in ("auto", "atlas"):
        method, found = "atlas", brain_mask(case.series[source], settings.grid)
    else:
        method, found = settings.method, program_mask(case.series[source], settings.method)
    volume = _ml(found.data, found.affine)
    if not settings.min_ml <= volume <= settings.max_ml:
        raise DataError(
            f"{source}: the brain found has {volume:.0f} ml, not {settings.min_ml:g} to "
            f"{settings.max_ml:g}; look at the image, or choose another --brain.method"
        )
    series, cut = {}, []
    for name, one in case.series.items():
        if name not in heads and _ml(tissue_mask(one.data), one.affine) < _WHOLE_HEAD * volume:
            series[name] = one
            continue
        mask = _on(found, one)
        if case.seg is not None:
            mask |= _labelled(case.seg, one)
        if not mask.any():
            raise DataError(f"{name} shows nothing of the brain in {source}; check their headers")
        series[name] = Series(np.where(mask, one.data, np.float32(0)), one.affine, mask)
        cut.append(name)
    note = {"method": method, "found_in": source, "volume_ml": round(volume, 1), "cut_out_of": cut}
    if case.seg is not None:
        note["labels_outside"] = int(np.sum((case.seg.data > 0) & ~_on(found, case.seg)))
    return Case(series, case.seg, case.history).noted("brain", note)


def _best_suited(series: Mapping[str, Series]) -> str:
    """T1 before T1 with contrast before T2, FLAIR and the rest."""
    return min(series, key=SEQUENCES.index)


def _ml(mask: np.ndarray, affine: np.ndarray) -> float:
    """Volume of the True voxels."""
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)


def _on(mask: Series, other: Series) -> np.ndarray:
    """A mask on the grid of another series, bool."""
    everywhere = np.ones(mask.data.shape, bool)
    share, _ = resample_image(
        mask.data.astype(np.float32), everywhere, mask.affine, other.affine, other.data.shape
    )
    return share >= 0.5


def _labelled(seg: Series, other: Series) -> np.ndarray:
    """Where there are labels, on the grid of a series, bool."""
    labels = (seg.data > 0).astype(np.uint8)
    return resample_labels(labels, seg.affine, other.affine, other.data.shape) > 0
