"""The index of a shard set: one binary row a study, mapped into memory and not parsed.

Notable: opening costs the same for ten studies and a million; rows are sorted by key, so that a
key is found by bisection.
"""

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.files import atomic_write, map_rows
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.record import parse_record
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.data_shards.study import KEY_LENGTH

INDEX = "index.npy"

_ROW = np.dtype(
    [
        ("key", f"S{KEY_LENGTH}"),
        ("subject", f"S{KEY_LENGTH}"),
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("crc32", "<u4"),
        ("shape", "<u4", 3),
        ("spacing", "<f4", 3),
        ("sequences", "<u4"),
        ("has_seg", "?"),
        ("fingerprint", "u1", 16),
    ]
)
"""`sequences` has one bit for each of `SEQUENCES`; offset, length and crc32 span all members."""


Row = tuple[Any, ...]
"""One row before it is packed, in the order of the fields."""


@dataclass(frozen=True)
class StudyEntry:
    """What the index knows of a study."""

    key: str
    subject: str
    shape: tuple[int, int, int]
    sequences: tuple[str, ...]
    """Canonical names, in the order of `SEQUENCES`."""
    spacing: tuple[float, float, float]
    """mm."""
    has_seg: bool
    fingerprint: str
    """Hash of the input's content, in hexadecimal."""


@dataclass(frozen=True)
class Place:
    """Where a study lies."""

    shard: int
    offset: int
    length: int
    crc32: int


class Index:
    """The rows of one shard set."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Map an index file.

        Raises:
            DataError: If the file is missing or no index.
        """
        return cls(map_rows(path, _ROW))

    def __len__(self) -> int:
        """Studies of the set."""
        return len(self._rows)

    @property
    def keys(self) -> np.ndarray:
        """[studies] bytes, sorted."""
        return self._rows["key"]

    @property
    def fingerprints(self) -> np.ndarray:
        """[studies, 16] uint8, hashes of the input's content."""
        return self._rows["fingerprint"]

    def entry(self, i: int) -> StudyEntry:
        """What is known of study `i`."""
        row = self._rows[i]
        bits = int(row["sequences"])
        d, h, w = row["shape"].tolist()
        x, y, z = row["spacing"].tolist()
        return StudyEntry(
            key=row["key"].decode(),
            subject=row["subject"].decode(),
            shape=(d, h, w),
            sequences=tuple(name for bit, name in enumerate(SEQUENCES) if bits >> bit & 1),
            spacing=(x, y, z),
            has_seg=bool(row["has_seg"]),
            fingerprint=row["fingerprint"].tobytes().hex(),
        )

    def place(self, i: int) -> Place:
        """Where study `i` lies."""
        row = self._rows[i]
        return Place(int(row["shard"]), int(row["offset"]), int(row["length"]), int(row["crc32"]))

    def position(self, key: str) -> int | None:
        """The number of a study, None if there is none of this key."""
        keys, wanted = self._rows["key"], key.encode()
        found = bisect_left(keys, wanted)
        return found if found < len(self) and keys[found] == wanted else None

    def counts(self) -> dict[str, int]:
        """Sequence → studies that have it; sequences that none has are left out."""
        bits = self._rows["sequences"]
        counts = {name: int(np.sum(bits >> bit & 1)) for bit, name in enumerate(SEQUENCES)}
        return {name: count for name, count in counts.items() if count}

    def labelled(self) -> int:
        """How many studies have a segmentation."""
        return int(np.sum(self._rows["has_seg"]))


def scan_shard(path: Path, number: int) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    """Row and record of each study of a finished shard, read from the shard itself.

    Raises:
        DataError: If the shard is damaged.
    """
    archive = tar.open_archive(path)
    for members in studies_in(archive, path.name):
        record = parse_record(members[0].content, members[0].name)
        yield _row(record, members, number, archive), record


def studies_in(archive: memoryview, name: str) -> Iterator[list[tar.Member]]:
    """The members of each study of a shard; a record begins a study.

    Args:
        archive: The shard.
        name: The shard, for messages.

    Raises:
        DataError: If the shard is damaged.
    """
    members: list[tar.Member] = []
    for member in tar.walk(archive, 0, len(archive), name):
        if member.name.endswith(".json") and members:
            yield members
            members = []
        members.append(member)
    if members:
        yield members


def pack(rows: Sequence[Row]) -> np.ndarray:
    """Rows as the index holds them."""
    return np.array(rows, dtype=_ROW)


def write_index(path: Path, rows: np.ndarray) -> None:
    """Write rows, packed and in the order of their keys, atomically."""
    with atomic_write(path) as file:
        np.save(file, rows, allow_pickle=False)


def _row(
    record: Mapping[str, Any], members: Sequence[tar.Member], shard: int, archive: memoryview
) -> Row:
    """The row of one study."""
    start, end = members[0].offset, members[-1].end
    return (
        record["key"].encode(),
        record["subject"].encode(),
        shard,
        start,
        end - start,
        zlib.crc32(archive[start:end]),
        record["shape"],
        record["spacing"],
        _bits(record["sequences"]),
        record["has_seg"],
        list(bytes.fromhex(record["fingerprint"]).rjust(16, b"\0")),
    )


def _bits(sequences: Iterable[str]) -> int:
    """One bit for each sequence."""
    return sum(1 << SEQUENCES.index(name) for name in sequences)
