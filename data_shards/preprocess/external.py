"""Brain extraction by programs that are installed apart: HD-BET and SynthStrip."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.nifti import read_labels, write_nifti
from gliomoe.data_shards.preprocess.case import Series

PROGRAMS = {
    "hd-bet": ("hd-bet", "-i", "{head}", "-o", "{brain}"),
    "synthstrip": ("mri_synthstrip", "-i", "{head}", "-o", "{brain}"),
}
"""Method → command that reads an image and writes it with all but the brain set to 0."""


def check_program(method: str) -> None:
    """Refuse a method whose program is not installed with a `UsageError`."""
    command = PROGRAMS[method][0]
    if shutil.which(command) is None:
        raise UsageError(
            f"--brain.method {method} needs the program {command}, which is not on the PATH; "
            "install it or take --brain.method atlas"
        )


def program_mask(head: Series, method: str) -> Series:
    """Where the brain is, as a program says.

    Args:
        head: A series that shows the brain with its skull.
        method: A key of `PROGRAMS`.

    Returns:
        A series whose data are the mask, [D, H, W] bool, on the grid of `head`.

    Raises:
        UsageError: If the program is not installed.
        DataError: If it fails.
    """
    check_program(method)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.nii.gz" for name in ("head", "brain")}
        write_nifti(paths["head"], head.data, head.affine)
        command = [part.format(**paths) for part in PROGRAMS[method]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not paths["brain"].is_file():
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise DataError(f"{command[0]} failed with code {done.returncode} ({said})")
        brain = read_labels(paths["brain"])
    if brain.data.shape != head.data.shape:
        raise DataError(f"{command[0]} gave an image of size {brain.data.shape}")
    return Series(np.asarray(brain.data != 0), head.affine)
