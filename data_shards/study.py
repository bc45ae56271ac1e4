"""A study: one subject in one session, as files (`RawStudy`) and on one grid (`Study`)."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError

KEY_LENGTH = 64
"""Longest study key; a shard member's name must fit a plain tar header."""


@dataclass(frozen=True)
class RawStudy:
    """The files of a study, as an ingest layout found them."""

    subject: str
    """Subject as the source names it."""
    session: str | None
    series: dict[str, Path]
    """Canonical sequence → file; may be empty, which preprocessing refuses by name."""
    seg: Path | None
    source: Path
    """Where the study was found, for messages."""
    layout: str
    """Name of the ingest layout."""
    seg_labels: str = "brats2021"
    """Convention of the labels in `seg`, a key of `gliomoe.data_shards.labels.CONVENTIONS`."""


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
    """Hash of the input's content (`gliomoe.data_shards.fingerprint`)."""
    layout: str = ""
    """Ingest layout that the study came from."""

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
    return hashlib.blake2b(text.encode(), key=secret, digest_size=size).hexdigest()
