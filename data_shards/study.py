"""A study: one subject in one session, as files (`RawStudy`) and on one grid (`Study`)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError

KEY_LENGTH = 64
"""Longest study key; a shard member's name must fit a plain tar header."""


@dataclass(frozen=True)
class DicomSeries:
    """The files of one volume of a DICOM series; nothing of its headers is kept."""

    files: tuple[Path, ...]
    """In the order of their slices."""


Source = Path | DicomSeries
"""Where the voxels of one sequence lie: a NIfTI file, or DICOM files to convert."""


@dataclass(frozen=True)
class LeftOut:
    """A file, or a series of a folder, that is not used."""

    name: str
    """Path, and what in it where that is not the whole of it."""
    reason: str


@dataclass(frozen=True)
class RawStudy:
    """The files of a study, as an ingest layout found them."""

    subject: str
    """Subject as the source names it."""
    session: str | None
    series: dict[str, Source]
    """Canonical sequence → source; may be empty, which preprocessing refuses by name."""
    seg: Path | None
    source: Path
    """Where the study was found, for messages."""
    layout: str
    """Name of the ingest layout."""
    seg_labels: str = "brats2021"
    """Convention of the labels in `seg`, a key of `gliomoe.data_shards.labels.CONVENTIONS`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Marker → what a table says of it, as it spells it; no entry where it says nothing."""
    left_out: tuple[LeftOut, ...] = ()
    """Files beside the series that are not used."""

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        sources = [*self.series.values(), *([self.seg] if self.seg else [])]
        return [path for source in sources for path in source_files(source)]


def source_files(source: Source) -> tuple[Path, ...]:
    """The files of a source."""
    return source.files if isinstance(source, DicomSeries) else (source,)


def to_paths(source: Source) -> str | list[str]:
    """A source as JSON values, absolute; `to_source` is the way back."""
    paths = [str(path.resolve()) for path in source_files(source)]
    return paths if isinstance(source, DicomSeries) else paths[0]


def to_source(paths: str | list[str]) -> Source:
    """A source from what `to_paths` gave."""
    return Path(paths) if isinstance(paths, str) else DicomSeries(tuple(map(Path, paths)))


def source_name(source: Source) -> str:
    """A source in messages and lists: its file, or the first of its files and how many more."""
    first, *more = source_files(source)
    return f"{first} and {len(more)} more" if more else str(first)


@dataclass(frozen=True)
class Study:
    """A preprocessed study: every sequence on one grid."""

    key: str
    subject: str
    """Subject in the spelling of keys; studies of one subject share it."""
    volumes: dict[str, np.ndarray]
    """Canonical sequence → [D, H, W] float32 in original intensities, background exactly 0."""
    affine: np.ndarray
    """[4, 4] float64, voxel → RAS+ mm; D, H, W run along R, A, S as nearly as they can."""
    seg: np.ndarray | None = None
    """[D, H, W] uint8 canonical labels."""
    history: dict[str, Any] = field(default_factory=dict)
    """Step → what it did, JSON values that name no person and no path."""
    fingerprint: str = ""
    """Hash of the input's content (`gliomoe.data_shards.identity.fingerprint`)."""
    layout: str = ""
    """Ingest layout that the study came from."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Marker → what the source's table says of it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """D, H, W."""
        d, h, w = next(iter(self.volumes.values())).shape
        return d, h, w

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along D, H, W."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def study_key(subject: str, session: str | None = None, salt: str | None = None) -> str:
    """The key of a study: `[a-z0-9_-]+`, at most `KEY_LENGTH` characters, no dots.

    Args:
        subject: Subject as the source names it.
        session: Session as the source names it, if there are several.
        salt: None keeps the ids; otherwise the key is a hash salted with this text.

    Raises:
        DataError: If ids are kept and give an empty or too long key.
    """
    name = subject if session is None else f"{subject}_{session}"
    if salt is not None:
        return keyed_hash(name, salt, 16)
    key = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    if not 0 < len(key) <= KEY_LENGTH:
        raise DataError(
            f"{name!r}: gives a study key of {len(key)} characters, at most {KEY_LENGTH} are "
            "allowed; rename the subject or build without keep_ids"
        )
    return key


def keyed_hash(text: str, salt: str, size: int) -> str:
    """Hash of a text that only who knows the salt can recompute, in hexadecimal.

    Args:
        text: What to hash.
        salt: Of any length.
        size: Bytes of the hash.
    """
    secret = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    content = text.encode(errors="surrogateescape")  # a file's name need not be text
    return hashlib.blake2b(content, key=secret, digest_size=size).hexdigest()
