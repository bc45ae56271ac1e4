"""What a file's name says: sequence, segmentation, or neither."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.nifti import is_nifti
from gliomoe.data_shards.sequences import ALIASES, SEQUENCES, canonical_sequence
from gliomoe.data_shards.study import LeftOut, Source

MASKS = ("mask", "msk", "brainmask", "dseg", "probseg", "defacemask", "gtv", "parcellation")
"""Last words of files that are neither an image nor the tumour's segmentation."""

_SEGS = ("seg", "segm", "segmentation")
_ORGANS = ("brain", "parenchyma", "tissue", "head", "skull")
"""Words of a segmentation that is not the tumour's."""


@dataclass(frozen=True)
class Files:
    """The NIfTI files directly in a folder, told apart by their names."""

    images: tuple[Path, ...]
    segs: tuple[Path, ...]
    """Segmentations of a tumour."""
    left_out: tuple[LeftOut, ...]


def read_folder(folder: Path) -> Files:
    """The NIfTI files directly in a folder, sorted by name."""
    images, segs, left_out = [], [], []
    for path in sorted(path for path in folder.iterdir() if is_nifti(path)):
        if reason := _no_file(path):
            left_out.append(LeftOut(str(path), reason))
        elif is_mask(path):
            left_out.append(LeftOut(str(path), "a mask"))
        elif parts(path)[-1] in _SEGS:
            segs.append(path)
        else:
            images.append(path)
    return Files(tuple(images), tuple(segs), tuple(left_out))


def nifti_files(folder: Path) -> list[Path]:
    """The NIfTI files directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_nifti(path) and not _no_file(path))


def _no_file(path: Path) -> str | None:
    """Why something with the name of a file is none."""
    if path.is_dir():
        return "a folder, not a file"
    return None if path.is_file() else "a link to nothing"


def stem(path: Path) -> str:
    """The name without `.nii` or `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def parts(path: Path) -> list[str]:
    """The words of a name in lower case; `_`, `-`, `.` and blanks part them."""
    return words(path.name)[0]


def words(name: str) -> tuple[list[str], list[str]]:
    """The words of a file's name in lower case, and as it spells them."""
    spelt = [word for word in re.split(r"[_\-.\s]+", stem(Path(name))) if word] or [name]
    return [word.lower() for word in spelt], spelt


def is_mask(path: Path) -> bool:
    """Whether a name says that the file is a mask of some kind but not a tumour's segmentation."""
    *others, last = parts(path)
    return last in MASKS or (last in _SEGS and any(word in _ORGANS for word in others))


def sequence_of(path: Path) -> str:
    """The canonical sequence that a name says (see `sequence_words`).

    A name that says none gives `other` and a warning.
    """
    found = sequence_words(path)
    if found is None:
        return canonical_sequence(parts(path)[-1])
    return found[0]


def sequence_words(path: Path) -> tuple[str, set[int]] | None:
    """The canonical sequence that a name says, and the positions of the words that say it.

    The last word that is one counts, or the last two that are one together: `t1_post` and
    `sub-01_ce-gad_T1w` are `t1ce`, `T2_FLAIR` is `flair`.
    """
    spelt = parts(path)
    for i in reversed(range(len(spelt))):
        if i and (pair := ALIASES.get(spelt[i - 1] + spelt[i])):
            return pair, {i - 1, i}
        name = ALIASES.get(spelt[i], spelt[i])
        if name not in SEQUENCES:
            continue
        if name == "t1" and "ce" in spelt[:i]:
            return "t1ce", {spelt.index("ce"), i}
        return name, {i}
    return None


def by_sequence(paths: Iterable[Path]) -> tuple[dict[str, Source], list[LeftOut]]:
    """One file for each sequence, in the order of `SEQUENCES`, and those that are too many.

    The shortest name of several wins, then the first: `x_T1` before `x_T1_bias`.
    """
    found: dict[str, Path] = {}
    left_out = []
    for path in sorted(paths, key=lambda path: (len(parts(path)), path.name)):
        name = sequence_of(path)
        if name in found:
            left_out.append(second(path, name, found[name]))
        else:
            found[name] = path
    return in_order(found), left_out


def in_order(found: dict[str, Path]) -> dict[str, Source]:
    """Series in the order of `SEQUENCES`."""
    return {name: found[name] for name in SEQUENCES if name in found}


def second(path: Path, sequence: str, used: Path) -> LeftOut:
    """A file whose sequence the study has already."""
    return LeftOut(str(path), f"a second {sequence} beside {used.name}")
