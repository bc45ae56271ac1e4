"""A folder of DICOM files, in any order and under any names.

Notable: series are found by their UIDs and the geometry of their images, never by file name or
folder; a table says by the headers which sequence each is (`dicom_sequences.toml`). Of several
series of one sequence the one with the finest slices is used, then the smallest voxel, then the
lowest series number. Sessions are told apart by the study's UID.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gliomoe.data_shards.ingest.dicom_headers import Image, digest, read_image
from gliomoe.data_shards.ingest.dicom_table import Rule, first_fit, keywords, read_rules
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.data_shards.study import DicomSeries, LeftOut, RawStudy, source_name

_LEAST = 5
"""Slices of the thinnest stack that is taken for a volume."""

_PREFIX = 132
"""Bytes up to and including the letters DICM."""

_log = logging.getLogger(__name__)


@dataclass
class _Stack:
    """Images of one series with one geometry, contrast and echo."""

    first: Image
    images: list[Image] = field(default_factory=list)

    @property
    def source(self) -> DicomSeries:
        """Its files in the order of their slices."""
        ordered = sorted(self.images, key=lambda image: (image.positions[0], image.path))
        return DicomSeries(tuple(image.path for image in ordered))

    @property
    def resolution(self) -> tuple[float, float, float, str]:
        """What is smallest for the stack to use."""
        positions = sorted({round(p, 2) for image in self.images for p in image.positions})
        gaps = np.diff(positions) if len(positions) > 1 else [self.first.number("SliceThickness")]
        step = float(np.median(gaps))
        pixel = self.first.geometry[6:]
        volume = step * pixel[0] * pixel[1]
        number = self.first.number("SeriesNumber")
        return max(step, *pixel), volume, number, str(self.source.files[0])


def find_dicom(source: Path, table: Path | None = None) -> tuple[list[RawStudy], list[LeftOut]]:
    """The studies of all DICOM files below a folder, and the files that belong to none.

    Args:
        source: A folder, or one multi-frame file.
        table: The user's table of sequences, asked before the package's.

    Raises:
        UsageError: If the table cannot be used.
    """
    rules = read_rules(table)
    stacks, left_out = _scan(source, rules)
    studies: dict[tuple[str, str], list[_Stack]] = {}
    for stack in stacks:
        studies.setdefault((stack.first.subject, stack.first.study), []).append(stack)
    found = [_study(group, rules) for group in studies.values()]
    return sorted(found, key=lambda study: (study.subject, study.session or "")), left_out


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files below a folder is DICOM."""
    for number, path in enumerate(_files(folder)):
        if is_dicom(path):
            return True
        if number > 100:
            break
    return False


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(_PREFIX)[-4:] == b"DICM"
    except OSError:
        return False


def _files(source: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones apart, in the order of their paths."""
    if source.is_file():
        yield source
        return
    seen = set()  # links may lead round in a circle
    for folder, folders, files in os.walk(source, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be listed."""
    raise error


def _scan(source: Path, rules: Sequence[Rule]) -> tuple[list[_Stack], list[LeftOut]]:
    """All stacks below a folder, and the files that are in none."""
    wanted = sorted(keywords(rules))
    groups: dict[tuple[object, ...], list[_Stack]] = {}
    seen: dict[str, Path] = {}
    others: dict[tuple[Path, str], list[Path]] = {}
    for path in tqdm(list(_files(source)), "dicom headers", unit="file", disable=None):
        image = read_image(path, wanted)
        if isinstance(image, str):
            others.setdefault((path.parent, image), []).append(path)
            if "damaged" in image:
                _log.warning("%s: %s", path, image)
        elif image.instance in seen:
            others.setdefault((path.parent, "a copy of another file"), []).append(path)
        else:
            seen[image.instance] = path
            _place(groups, image)
    left_out = [
        LeftOut(source_name(DicomSeries(tuple(paths))), reason)
        for (_, reason), paths in others.items()
    ]
    return [stack for stacks in groups.values() for stack in stacks], left_out


def _place(groups: dict[tuple[object, ...], list[_Stack]], image: Image) -> None:
    """Put an image on the stack that it belongs to."""
    same = ("ImageType", "EchoTime", "DiffusionBValue")
    key = (image.study, image.series, image.grid, *(image.headers[name] for name in same))
    for stack in groups.setdefault(key, []):
        if np.allclose(stack.first.geometry, image.geometry, atol=1e-3):
            stack.images.append(image)
            return
    groups[key].append(_Stack(image, [image]))


def _study(stacks: Sequence[_Stack], rules: Sequence[Rule]) -> RawStudy:
    """The study of the stacks that share a study's UID."""
    candidates: dict[str, list[_Stack]] = {}
    left_out = []
    for stack in stacks:
        sequence, reason = _judge(stack, rules)
        if sequence is None:
            left_out.append(LeftOut(source_name(stack.source), reason))
        else:
            candidates.setdefault(sequence, []).append(stack)
    used = {}
    for sequence, group in candidates.items():
        used[sequence], *others = sorted(group, key=lambda stack: stack.resolution)
        left_out += [_second(stack, sequence, used[sequence]) for stack in others]
    first = stacks[0].first
    return RawStudy(
        subject=first.subject,
        session=digest(first.study),
        series={name: used[name].source for name in SEQUENCES if name in used},
        seg=None,
        source=_parent(image.path for stack in stacks for image in stack.images),
        layout="dicom",
        left_out=tuple(sorted(left_out, key=lambda one: one.name)),
    )


def _judge(stack: _Stack, rules: Sequence[Rule]) -> tuple[str | None, str]:
    """The sequence of a stack, or None and why it is not used."""
    rule = first_fit(rules, stack.first.headers)
    if rule is not None and rule.sequence is None:
        return None, str(rule.leave_out)
    positions = [round(p, 2) for image in stack.images for p in image.positions]
    if stack.first.mosaic:
        if len(stack.images) > 1:
            return None, f"a 4-D acquisition ({len(stack.images)} volumes)"
    elif len(set(positions)) < len(positions):
        counted = f"{len(positions)} images at {len(set(positions))} positions"
        return None, f"a 4-D acquisition ({counted})"
    elif len(positions) < _LEAST:
        return None, f"only {len(positions)} slices: a localiser or an incomplete series"
    if rule is None:
        _log.warning("%s: no rule knows its sequence, kept as other", source_name(stack.source))
    return ("other" if rule is None else rule.sequence), ""


def _second(stack: _Stack, sequence: str, used: _Stack) -> LeftOut:
    """A series whose sequence the study has already."""
    return LeftOut(
        source_name(stack.source),
        f"a second {sequence}, coarser or later than {source_name(used.source)}",
    )


def _parent(paths: Iterable[Path]) -> Path:
    """The deepest folder that holds all files."""
    return Path(os.path.commonpath([path.parent.absolute() for path in paths]))
