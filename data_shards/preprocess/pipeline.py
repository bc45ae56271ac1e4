"""From the files of a study to the study, through a registry of steps."""

from collections.abc import Callable

import numpy as np

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.identity.fingerprint import fingerprint
from gliomoe.data_shards.ingest.source import read_source
from gliomoe.data_shards.labels import to_canonical
from gliomoe.data_shards.nifti import read_labels
from gliomoe.data_shards.preprocess.background import background
from gliomoe.data_shards.preprocess.brain import brain
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import PreprocessConfig
from gliomoe.data_shards.preprocess.crop import crop
from gliomoe.data_shards.preprocess.external import PROGRAMS, check_program
from gliomoe.data_shards.preprocess.geometry import check_geometry
from gliomoe.data_shards.preprocess.grid import grid
from gliomoe.data_shards.preprocess.n4 import n4
from gliomoe.data_shards.preprocess.orient import to_ras
from gliomoe.data_shards.preprocess.register import register
from gliomoe.data_shards.preprocess.resample import same_grid
from gliomoe.data_shards.study import RawStudy, Study, study_key

STEPS: dict[str, Callable[[Case, PreprocessConfig], Case]] = {
    "register": register,
    "brain": brain,
    "n4": n4,
    "background": background,
    "grid": grid,
    "crop": crop,
}
"""Step → function from a case, its axes along R, A, S, to the changed case; in their order."""


def preprocess(raw: RawStudy, config: PreprocessConfig, salt: str | None = None) -> Study:
    """Read a study and bring it onto one grid.

    Args:
        raw: The files.
        config: Settings; their steps are keys of `STEPS`.
        salt: None keeps subject and session as they are in the key (see `study_key`).

    Returns:
        The study, its intensities those of the files, its background 0.

    Raises:
        DataError: If there is no image, one of the files is unusable, or a step fails.
        UsageError: If a step is unknown, out of order or needs a program that is not installed.
    """
    check_steps(config)
    if not raw.series:
        raise DataError(f"{raw.source}: has no usable sequence; give it at least one image")
    case = _read(raw).map(to_ras).noted("orient", "RAS")
    try:
        check_geometry(case)
    except DataError as error:
        raise DataError(f"{raw.source}: {error}") from error
    content = fingerprint(series.data for series in case.series.values())
    for name in config.steps:
        try:
            case = STEPS[name](case, config)
        except DataError as error:
            raise DataError(f"{raw.source}: {error}") from error
        except RuntimeError as error:  # how SimpleITK says that an image defeats it
            said = " ".join(str(error).split())[-200:]
            raise DataError(f"{raw.source}: step {name} failed ({said})") from error
    return Study(
        key=study_key(raw.subject, raw.session, salt),
        subject=study_key(raw.subject, None, salt),
        volumes={name: series.data for name, series in case.series.items()},
        affine=_common_affine(case, raw),
        seg=None if case.seg is None else case.seg.data,
        history=case.history,
        fingerprint=content,
        layout=raw.layout,
        labels=raw.labels,
    )


def check_steps(config: PreprocessConfig) -> None:
    """Refuse steps that cannot be done with a `UsageError`: unknown, out of order, no program."""
    if unknown := [name for name in config.steps if name not in STEPS]:
        raise UsageError(f"unknown steps {', '.join(unknown)}; known: {', '.join(STEPS)}")
    if list(config.steps) != [name for name in STEPS if name in config.steps]:
        raise UsageError(f"steps are done in the order {', '.join(STEPS)}, each once")
    if "brain" in config.steps and config.brain.method in PROGRAMS:
        check_program(config.brain.method)


def _read(raw: RawStudy) -> Case:
    """The files of a study as they are."""
    series = {}
    for name, source in raw.series.items():
        volume = read_source(source)
        series[name] = Series(volume.data, volume.affine)
    if raw.seg is None:
        return Case(series)
    volume = read_labels(raw.seg)
    try:
        labels = to_canonical(volume.data, raw.seg_labels)
    except ValueError as error:
        raise DataError(f"{raw.seg}: {error}") from error
    return Case(series, Series(labels, volume.affine))


def _common_affine(case: Case, raw: RawStudy) -> np.ndarray:
    """The affine of the grid that all series share after the steps."""
    first, *others = [*case.series.values(), *([] if case.seg is None else [case.seg])]
    for other in others:
        if not same_grid(first.affine, first.data.shape, other.affine, other.data.shape):
            raise DataError(f"{raw.source}: series on different grids; keep the step 'grid'")
    return first.affine
