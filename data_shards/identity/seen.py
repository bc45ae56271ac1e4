"""Which studies some weights have seen, so that none of them is taken for evaluation.

The file (`pretraining_fingerprints.bin` of a checkpoint) is, little-endian: 8 bytes `GLIOSEEN`;
the version, the number of contents and the number of signatures as uint32; the contents, 16 bytes
each (`fingerprint.py`), sorted; the signatures, sorted, each a byte for the sequence (its place in
`SEQUENCES`) and 128 bytes (`signature.py`). An empty file lists nothing.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.identity.overlap import THRESHOLD, scores
from gliomoe.data_shards.identity.signature import SIZE
from gliomoe.data_shards.sequences import SEQUENCES

_HEAD = struct.Struct("<8sIII")
_MAGIC = b"GLIOSEEN"
_VERSION = 1
_CONTENT = 16
_SIGNATURE = 1 + SIZE
_BLOCK = 65_536


@dataclass(frozen=True)
class Seen:
    """A set of studies, by content and by looks."""

    contents: frozenset[bytes] = frozenset()
    """Hashes of the voxels of the studies' files."""
    signatures: frozenset[bytes] = frozenset()
    """Place in `SEQUENCES` (one byte) and signature of each scan."""

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Seen":
        """One study, by its record."""
        scans = (
            bytes([SEQUENCES.index(name)]) + bytes.fromhex(how["signature"])
            for name, how in record["sequences"].items()
        )
        return cls(frozenset([bytes.fromhex(record["fingerprint"])]), frozenset(scans))

    @classmethod
    def join(cls, parts: Iterable["Seen"]) -> "Seen":
        """All studies of several sets."""
        contents: set[bytes] = set()
        signatures: set[bytes] = set()
        for part in parts:
            contents |= part.contents
            signatures |= part.signatures
        return cls(frozenset(contents), frozenset(signatures))

    @classmethod
    def read(cls, path: Path) -> "Seen":
        """The studies that a file lists; none if there is no file.

        Raises:
            DataError: If the file is damaged or of another version.
        """
        data = path.read_bytes() if path.is_file() else b""
        if not data:
            return cls()
        if len(data) < _HEAD.size or not data.startswith(_MAGIC):
            raise DataError(f"{path}: not a list of fingerprints; fetch or export it again")
        _, version, contents, signatures = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise DataError(f"{path}: has version {version}, this program reads {_VERSION}")
        middle = _HEAD.size + contents * _CONTENT
        if len(data) != middle + signatures * _SIGNATURE:
            raise DataError(f"{path}: cut off or too long; fetch or export it again")
        return cls(
            frozenset(data[i : i + _CONTENT] for i in range(_HEAD.size, middle, _CONTENT)),
            frozenset(data[i : i + _SIGNATURE] for i in range(middle, len(data), _SIGNATURE)),
        )

    def to_bytes(self) -> bytes:
        """The content of the file."""
        head = _HEAD.pack(_MAGIC, _VERSION, len(self.contents), len(self.signatures))
        return b"".join([head, *sorted(self.contents), *sorted(self.signatures)])

    def which(self, studies: Iterable["Seen"]) -> list[bool]:
        """For each of some studies, whether it is one of these: equal, or of like looks."""
        known = _table(self.signatures)
        return [
            any(content in self.contents for content in study.contents)
            or _alike(_table(study.signatures), known)
            for study in studies
        ]


def _table(signatures: frozenset[bytes]) -> np.ndarray:
    """[n, 1 + SIZE] uint8, sorted, so that each sequence lies together."""
    joined = b"".join(sorted(signatures))
    return np.frombuffer(joined, np.uint8).reshape(-1, _SIGNATURE)


def _alike(mine: np.ndarray, known: np.ndarray) -> bool:
    """Whether a scan is like a known one of its sequence."""
    for scan in mine:
        first, last = np.searchsorted(known[:, 0], [scan[0], scan[0] + 1])
        for start in range(first, last, _BLOCK):
            codes = known[start : min(start + _BLOCK, last), 1:]
            if scores(scan[None, 1:], codes).max() >= THRESHOLD:
                return True
    return False
