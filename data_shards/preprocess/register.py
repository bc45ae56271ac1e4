"""Step `register`: series that do not lie where the best-resolved one lies are moved onto it.

Notable: only the affine of a series changes; its voxels are resampled once, in the step `grid`. A
scanner copies one prescription to many series while the patient moves, so that equal grids prove
nothing; series that are masked already, or that labels were drawn on, are believed to be aligned.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.background import is_masked
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig, RegisterConfig
from gliomoe.data_shards.preprocess.grid import best_resolved
from gliomoe.data_shards.preprocess.resample import same_grid
from gliomoe.data_shards.preprocess.rigid import (
    Copy,
    displacement,
    find_motion,
    make_copy,
    mutual_information,
    rotation_degrees,
)
from gliomoe.data_shards.sequences import SEQUENCES

_LEAST = 0.1
"""Mutual information, nats, below which images that did not meet before have not met yet."""


def register(case: Case, config: PreprocessConfig) -> Case:
    """Move the series of a session onto the best-resolved one, each by a rigid motion.

    Of series that share a grid the first is moved and the others follow; these are then moved for
    themselves, unless they are masked or labelled. Labels stay with the series whose grid they
    have.

    Raises:
        DataError: If a series shows no tissue.
    """
    reference = best_resolved(case.series)
    fixed: Copy | None = None
    motions: dict[str, np.ndarray] = {}
    seg, notes = case.seg, {}
    for names in _groups(case, reference):
        leader = names[0]
        labelled = case.seg is not None and _share_grid(case.seg, case.series[leader])
        for name in names:
            one, start = case.series[name], motions.get(leader, np.eye(4))
            motions[name] = start
            if name == reference or (name != leader and (labelled or is_masked(one.data))):
                continue
            fixed = fixed or _copy(case, reference, config.register)
            moving = _copy(case, name, config.register)
            motions[name], notes[name] = _align(fixed, moving, start, config.register)
        if labelled and case.seg is not None:
            seg = _moved(case.seg, motions[leader])
    series = {name: _moved(one, motions[name]) for name, one in case.series.items()}
    what = {"reference": reference, "series": notes}
    return Case(series, seg, case.history).noted("register", what)


def _groups(case: Case, reference: str) -> list[list[str]]:
    """Names of the series, those of one grid together; the reference comes first of all."""
    groups: list[list[str]] = []
    for name in sorted(case.series, key=lambda name: (name != reference, SEQUENCES.index(name))):
        for group in groups:
            if _share_grid(case.series[name], case.series[group[0]]):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _share_grid(one: Series, other: Series) -> bool:
    """Whether two series have the same voxels."""
    return same_grid(one.affine, one.data.shape, other.affine, other.data.shape)


def _moved(series: Series, motion: np.ndarray) -> Series:
    """A series at another place; untouched if the motion is none."""
    if np.array_equal(motion, np.eye(4)):
        return series
    return replace(series, affine=motion @ series.affine)


def _copy(case: Case, name: str, config: RegisterConfig) -> Copy:
    """A series as it is compared."""
    copy = make_copy(case.series[name], config.grid)
    if copy is None:
        raise DataError(f"{name} shows no tissue; leave it out")
    return copy


def _align(
    fixed: Copy, moving: Copy, start: np.ndarray, config: RegisterConfig
) -> tuple[np.ndarray, dict[str, Any]]:
    """The motion to keep, which may be `start`, and what to note of the search."""
    before = mutual_information(fixed, moving, start)
    gathered = start.copy()
    gathered[:3, 3] += fixed.centre - (start[:3, :3] @ moving.centre + start[:3, 3])
    centred = mutual_information(fixed, moving, gathered)
    begin = gathered if (centred or 0) > (before or 0) else start
    found = find_motion(fixed, moving, begin)
    after = None if found is None else mutual_information(fixed, moving, found)
    note: dict[str, Any] = {"kept": False, "mutual_information": [before, after]}
    if found is None or after is None:
        return start, {**note, "why": "the search lost the image"}
    change = found @ np.linalg.inv(start)
    centre = start[:3, :3] @ moving.centre + start[:3, 3]
    travel = change[:3, :3] @ centre + change[:3, 3] - centre
    angle, way = rotation_degrees(change), displacement(change, moving, start)
    note["rotation_degrees"] = round(angle, 3)
    note["translation_mm"] = [round(float(part), 3) for part in travel]
    note["mean_motion_mm"] = round(way, 3)
    shift = displacement(found @ np.linalg.inv(begin), moving, begin)
    if angle > config.max_rotation or shift > config.max_shift:
        why = "an implausible motion"
    elif after < (_LEAST if before is None else before * (1 + config.min_gain)):
        why = "too little gain"
    elif way < config.min_motion:
        why = "too small a motion"
    else:
        return found, {**note, "kept": True}
    return start, {**note, "why": why}
