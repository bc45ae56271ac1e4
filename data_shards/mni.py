"""The MNI152 maps that nilearn ships."""

import importlib.util
from pathlib import Path

import nibabel as nib

from gliomoe.data_shards.errors import DataError

BRAIN_T1 = 0.2 * 255
"""Value of the T1 map above which nilearn's brain mask begins."""


def mni_map(name: str) -> nib.Nifti1Image:
    """A map at 1 mm, 0 to 255, on axes along R, A, S.

    It is read as a file: `nilearn.datasets` gives the same numbers but takes seconds to import.

    Args:
        name: `t1` (the brain alone), `gm` or `wm`.

    Raises:
        DataError: If nilearn is not installed.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise DataError("nilearn: not installed; its MNI152 maps are needed")
    folder = Path(spec.origin).parent / "datasets" / "data"
    return nib.Nifti1Image.from_filename(
        folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    )
