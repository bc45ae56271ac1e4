"""The registry of layouts, and which one a folder has."""

from collections.abc import Callable
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest.bids import find_bids, is_subject
from gliomoe.data_shards.ingest.brats import find_brats
from gliomoe.data_shards.ingest.case import find_case
from gliomoe.data_shards.ingest.names import nifti_files
from gliomoe.data_shards.study import RawStudy

LAYOUTS: dict[str, Callable[[Path], list[RawStudy]]] = {
    "bids": find_bids,
    "brats": find_brats,
    "case": find_case,
}
"""Layout → function from a source to its studies."""


def find_studies(source: Path, layout: str = "auto") -> list[RawStudy]:
    """The studies of a folder or file.

    Args:
        source: A data set, a case folder or a single file.
        layout: A key of `LAYOUTS`, or `auto`.

    Returns:
        At least one study. One without a usable image is listed too, with empty `series`.

    Raises:
        UsageError: If the source does not exist, is empty or has no known layout.
    """
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if layout == "auto":
        layout = _recognise(source)
    elif layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; known: auto, {', '.join(LAYOUTS)}")
    studies = LAYOUTS[layout](source)
    if not any(study.series for study in studies):
        raise _nothing(source, layout)
    return studies


def _recognise(source: Path) -> str:
    """The layout of a source, by what it holds."""
    if source.is_file() or nifti_files(source):
        return "case"
    described = (source / "dataset_description.json").is_file()
    if described or is_subject(source) or any(source.glob("sub-*/*/")):
        return "bids"
    if any(path.is_dir() and nifti_files(path) for path in source.iterdir()):
        return "brats"
    raise _nothing(source, "bids, brats or case")


def _nothing(source: Path, layout: str) -> UsageError:
    """No image under a source."""
    return UsageError(
        f"{source}: holds no MRI in the layout {layout} (.nii or .nii.gz named by sequence); "
        "check the path, or name the layout with --layout"
    )
