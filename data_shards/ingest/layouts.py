"""The registry of layouts, and which one a source has."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest import manifest
from gliomoe.data_shards.ingest.bids import find_bids, is_data_set, is_subject
from gliomoe.data_shards.ingest.brats import find_brats, sub_folders
from gliomoe.data_shards.ingest.case import find_case
from gliomoe.data_shards.ingest.dicom import find_dicom, holds_dicom, is_dicom
from gliomoe.data_shards.ingest.manifest import find_manifest
from gliomoe.data_shards.ingest.names import nifti_files
from gliomoe.data_shards.nifti import is_nifti
from gliomoe.data_shards.study import LeftOut, RawStudy

LAYOUTS: dict[str, Callable[[Path], list[RawStudy]]] = {
    "bids": find_bids,
    "brats": find_brats,
    "case": find_case,
    "csv": find_manifest,
}
"""Layout → function from a source to its studies; `dicom` takes a table and gives more."""

_NAMES = (*LAYOUTS, "dicom")


@dataclass(frozen=True)
class Survey:
    """What a source holds."""

    studies: tuple[RawStudy, ...]
    """At least one. One without a usable image is listed too, with empty `series`."""
    left_out: tuple[LeftOut, ...] = ()
    """What belongs to no study; each study lists what it does not use itself."""


def survey(source: Path, layout: str = "auto", dicom_table: Path | None = None) -> Survey:
    """The studies of a folder or file, and what is left out.

    Args:
        source: A data set, a case folder, a folder of DICOM files, a manifest or a single file.
        layout: `auto`, `dicom` or a key of `LAYOUTS`.
        dicom_table: A table of sequences that is asked before the package's own.

    Raises:
        UsageError: If the source does not exist, is empty or has no known layout, or its manifest
            or table cannot be used.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if layout == "auto":
        layout = _recognise(source)
    elif layout not in _NAMES:
        raise UsageError(f"unknown layout {layout!r}; known: auto, {', '.join(_NAMES)}")
    if source.is_file() and layout == "case" and not is_nifti(source):
        raise UsageError(f"{source}: no .nii or .nii.gz file")
    if source.is_file() and layout in ("bids", "brats"):
        raise UsageError(f"{source}: a file, but the layout {layout} is a folder")
    if source.is_dir() and layout == "csv":
        raise UsageError(f"{source}: a folder, but the layout csv is a table; name the table")
    if layout == "dicom":
        studies, left_out = find_dicom(source, dicom_table)
    else:
        studies, left_out = LAYOUTS[layout](source), []
    found = Survey(tuple(studies), tuple(left_out))
    if not any(study.series for study in found.studies):
        raise _nothing(source, layout, found)
    return found


def find_studies(source: Path, layout: str = "auto") -> list[RawStudy]:
    """The studies of a folder or file alone; see `survey`."""
    return list(survey(source, layout).studies)


def _recognise(source: Path) -> str:
    """The layout of a source, by what it holds."""
    if source.is_file():
        return _recognise_file(source)
    if is_data_set(source) or (is_subject(source) and not nifti_files(source)):
        return "bids"
    if nifti_files(source):
        return "case"
    children = {folder: _kind(folder) for folder in sub_folders(source)}
    kinds = {kind for kind in children.values() if kind}
    if len(kinds) > 1:
        named = ", ".join(f"{folder.name} ({kind})" for folder, kind in children.items() if kind)
        raise UsageError(
            f"{source}: holds sources of different layouts: {named}; name them one by one, or "
            "say --layout if it is one after all"
        )
    if kinds == {"bids"}:
        named = " ".join(str(folder) for folder, kind in children.items() if kind)
        raise UsageError(f"{source}: holds several BIDS data sets; name them one by one: {named}")
    if kinds & {"case", "brats"}:
        return "brats"
    if kinds == {"dicom"} or holds_dicom(source):
        return "dicom"
    raise _nothing(source, ", ".join(_NAMES), None)


def _recognise_file(source: Path) -> str:
    """The layout of a single file."""
    if is_nifti(source):
        return "case"
    if source.suffix.lower() in manifest.SUFFIXES:
        return "csv"
    if is_dicom(source):
        return "dicom"
    raise UsageError(f"{source}: neither NIfTI, nor DICOM, nor a manifest (.csv or .tsv)")


def _kind(folder: Path) -> str | None:
    """What a folder in a folder is, None if it holds nothing that is known."""
    if is_data_set(folder):
        return "bids"
    if nifti_files(folder):
        return "case"
    if any(nifti_files(inner) for inner in sub_folders(folder)):
        return "brats"
    return "dicom" if holds_dicom(folder) else None


def _nothing(source: Path, layout: str, found: Survey | None) -> UsageError:
    """No image under a source."""
    reasons: dict[str, int] = {}
    if found is not None:
        listed = [*found.left_out, *(one for study in found.studies for one in study.left_out)]
        for one in listed:
            reasons[one.reason] = reasons.get(one.reason, 0) + 1
    seen = "".join(f"; left out: {n} × {reason}" for reason, n in sorted(reasons.items())[:4])
    return UsageError(
        f"{source}: holds no MRI in the layout {layout} (.nii or .nii.gz named by sequence, or "
        f"DICOM){seen}; check the path, or name the layout with --layout"
    )
