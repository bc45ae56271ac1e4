"""A DICOM series as a volume, through `dcm2niix`.

Notable: the converter sees links with numbers for names, in a folder of their own; it writes no
sidecar, and of its image only voxels and affine are kept, so nothing that a header says gets out.
"""

import subprocess
import tempfile
from pathlib import Path

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.nifti import Volume, read_nifti
from gliomoe.data_shards.study import DicomSeries, source_name

_OPTIONS = ("-g", "i", "-b", "n", "-c", "", "-z", "n", "-d", "0", "-m", "y", "-f", "volume")
"""No defaults of the user's, no sidecar, no comment, not compressed, no folders below; slices that
differ in anything but their geometry belong together, for the files were chosen so."""

_TIMEOUT = 900.0
"""Seconds after which a conversion has hung; the largest series take some ten."""

_REASONS = {
    "not large enough": "a file is truncated; copy the series again",
    "Compressed image": "its compression is not supported; decompress the series first",
    "Interslice distance varies": "slices are not evenly spaced, as when one is missing",
    "Unsupported transfer syntax": "its compression is not supported; decompress the series first",
}
"""What the converter says → what is wrong. Its own words may hold those of a header."""


def convert(series: DicomSeries) -> Volume:
    """Convert the files of one volume.

    Raises:
        DataError: If a file is truncated or cannot be read, slices are missing, or the files are
            not one 3-D volume.
    """
    name = source_name(series)
    with tempfile.TemporaryDirectory(prefix="gliomoe-dicom-") as temporary:
        files, out = Path(temporary, "in"), Path(temporary, "out")
        files.mkdir()
        out.mkdir()
        for number, path in enumerate(series.files):
            (files / f"{number:06d}.dcm").symlink_to(path.resolve())
        said = _run(files, out, name)
        found = list(out.glob("*.nii"))
        if len(found) != 1:
            raise DataError(f"{name}: {_reason(said) or f'gives {len(found)} volumes, not one'}")
        try:
            return read_nifti(found[0])
        except DataError as error:
            raise DataError(str(error).replace(str(found[0]), name)) from error


def _run(files: Path, out: Path, name: str) -> str:
    """Run the converter; returns what it said."""
    import dcm2niix

    command = [dcm2niix.bin, *_OPTIONS, "-o", str(out), str(files)]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{name}: conversion takes more than {_TIMEOUT:g} s") from error
    said = result.stdout + result.stderr
    if result.returncode:
        reason = _reason(said) or f"cannot be converted (dcm2niix code {result.returncode})"
        raise DataError(f"{name}: {reason}")
    return said


def _reason(said: str) -> str | None:
    """What is wrong, as far as the converter's output tells."""
    return next((reason for sign, reason in _REASONS.items() if sign in said), None)
