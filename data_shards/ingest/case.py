"""Case folders: NIfTI files named by sequence, of one study or, side by side, of several."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliomoe.data_shards.ingest.names import (
    by_sequence,
    parts,
    read_folder,
    sequence_of,
    sequence_words,
    stem,
    words,
)
from gliomoe.data_shards.study import LeftOut, RawStudy

_SPELT_2023 = ("t1n", "t2f")
"""Names of images that only BraTS since 2023 has; `t1c` beside `t1` is older than that."""

_DESCRIBING = frozenset(
    [
        *(
            "ax",
            "axial",
            "tra",
            "sag",
            "sagittal",
            "cor",
            "coronal",
            "2d",
            "3d",
            "iso",
            "tse",
            "se",
        ),
        *("brain", "head", "bet", "ss", "stripped", "skullstripped", "tumor", "tumour", "bfc"),
        *("reg", "registered", "coreg", "n4", "bias", "corrected", "norm", "preproc", "resampled"),
        *("raw", "orig", "original", "native", "defaced", "image", "img", "scan", "run", "acq"),
        *("pre", "post", "gd", "gad", "ce", "fs", "rec", "echo"),
    ]
)
"""Words that tell how an image was made and not whose it is."""


def find_case(source: Path, layout: str = "case") -> list[RawStudy]:
    """The studies in a folder such as `<id>/<id>_{t1,t1ce,t2,flair,seg}.nii.gz`, or of one file.

    A folder is one study. Only where a sequence occurs several times and the other words of the
    names divide all its files into groups without a second one, as in `P1_t1, P1_t2, P2_t1`, each
    group is a study and those words its subject.

    Names of BraTS up to 2022 (`_t1ce`), since 2023 (`-t1c`) and plain ones (`t1c.nii.gz`) work;
    the labels of a segmentation beside files in the spelling of 2023 follow its convention.

    Args:
        source: Folder or file.
        layout: Name of the layout to record.
    """
    if source.is_file():
        series, _ = by_sequence([source])
        return [RawStudy(stem(source), None, series, None, source, layout)]
    files = read_folder(source)
    groups = _groups([*files.images, *files.segs])
    if not groups:
        study = _study(source.resolve().name, source, files.images, files.segs, layout)
        return [replace(study, left_out=(*study.left_out, *files.left_out))]
    studies = []
    for name, members in groups.items():
        images = [path for path in files.images if path in members]
        segs = [path for path in files.segs if path in members]
        studies.append(_study(name, source, images, segs, layout))
    first = replace(studies[0], left_out=(*studies[0].left_out, *files.left_out))
    return [first, *studies[1:]]


def subject_session(name: str) -> tuple[str, str | None]:
    """Subject and session of a case's name; BraTS since 2023 ends it with the session."""
    found = re.fullmatch(r"(brats[-_][a-z]+(?:[-_]rt)?[-_]\d{4,5})[-_](\d{1,3})", name, re.I)
    return (found[1], found[2]) if found else (name, None)


def _study(
    name: str, source: Path, images: Sequence[Path], segs: Sequence[Path], layout: str
) -> RawStudy:
    """The study of some files."""
    series, left_out = by_sequence(images)
    left_out += [
        LeftOut(str(path), f"a second segmentation beside {segs[0].name}") for path in segs[1:]
    ]
    subject, session = subject_session(name)
    return RawStudy(
        subject=subject,
        session=session,
        series=series,
        seg=segs[0] if segs else None,
        source=source,
        layout=layout,
        seg_labels=_convention(images, segs),
        left_out=tuple(left_out),
    )


def _convention(images: Sequence[Path], segs: Sequence[Path]) -> str:
    """The convention of the labels, by the spelling of the names."""
    if segs and parts(segs[0])[:2] == ["brats", "ped"]:
        return "bratsped"
    since_2023 = any(parts(path)[-1] in _SPELT_2023 for path in images)
    return "brats2023" if since_2023 else "brats2021"


def _groups(paths: Sequence[Path]) -> dict[str, frozenset[Path]]:
    """Subject → files, where the names tell several studies apart; otherwise nothing."""
    found: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        found.setdefault(_others(path), []).append(path)
    sets = [frozenset(name) for name in found]
    nested = any(a <= b for i, a in enumerate(sets) for j, b in enumerate(sets) if i != j)
    if len(found) < 2 or nested or any(map(_is_counter, found)):
        return {}
    sequences = {name: [_kind(path) for path in group] for name, group in found.items()}
    every = [kind for kinds in sequences.values() for kind in kinds]
    twice_in_one = any(len(set(kinds)) < len(kinds) for kinds in sequences.values())
    if twice_in_one or len(set(every)) == len(every):
        return {}
    return {"_".join(name): frozenset(group) for name, group in sorted(found.items())}


def _is_counter(name: tuple[str, ...]) -> bool:
    """Whether a name is a short number, which counts scans as often as patients."""
    return len(name) == 1 and len(name[0]) <= 2 and name[0].isdigit()


def _others(path: Path) -> tuple[str, ...]:
    """The words of a name, as it spells them, that say neither sequence nor how it was made."""
    lower, spelt = words(path.name)
    saying = sequence_words(path)
    used = saying[1] if saying else {len(lower) - 1}
    return tuple(
        word for i, word in enumerate(spelt) if i not in used and lower[i] not in _DESCRIBING
    )


def _kind(path: Path) -> str:
    """What a file is in its study; several unknown sequences do not hinder each other."""
    return sequence_of(path) if sequence_words(path) else parts(path)[-1]
