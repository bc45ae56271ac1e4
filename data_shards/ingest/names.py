"""What a file's name says: sequence, segmentation, or neither."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from gliomoe.data_shards.nifti import is_nifti
from gliomoe.data_shards.sequences import ALIASES, SEQUENCES, canonical_sequence

MASKS = ("mask", "msk", "brainmask", "dseg", "probseg", "defacemask")
"""Names of files that are neither an image nor the tumour's segmentation."""

_log = logging.getLogger(__name__)


def nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and is_nifti(path))


def stem(path: Path) -> str:
    """The name without `.nii` or `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def parts(path: Path) -> list[str]:
    """The words of a name in lower case; `_`, `-`, `.` and blanks part them."""
    return re.split(r"[_\-. ]+", stem(path).lower())


def is_mask(path: Path) -> bool:
    """Whether a name says that the file is a mask of some kind but not a segmentation."""
    return parts(path)[-1] in MASKS


def sequence_of(path: Path) -> str:
    """The canonical sequence that a name says: its last word that is one.

    `sub-01_ce-gad_T1w` is `t1ce`. A name that says none gives `other` and a warning.
    """
    words = parts(path)
    known = [word for word in words if ALIASES.get(word, word) in SEQUENCES]
    name = canonical_sequence(known[-1] if known else words[-1])
    return "t1ce" if name == "t1" and "ce" in words[:-1] else name


def by_sequence(paths: Iterable[Path]) -> dict[str, Path]:
    """One file for each sequence, in the order of `SEQUENCES`; the first name of several wins."""
    found: dict[str, Path] = {}
    for path in paths:
        name = sequence_of(path)
        if name in found:
            _log.warning("%s: a second %s beside %s, not used", path, name, found[name].name)
        else:
            found[name] = path
    return {name: found[name] for name in SEQUENCES if name in found}
