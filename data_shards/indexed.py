"""`ShardSet`: studies of one or several shard sets by number, any crop decoded in place.

Notable: shards are mapped into memory and stay closed files; a crop touches the blocks that it
needs. A `ShardSet` can be pickled and forked, so the workers of a loader each take a copy.
"""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards import tar
from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.dataset import DATASET, read_dataset
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.index import INDEX, Index, Place, StudyEntry
from gliomoe.data_shards.record import parse_record
from gliomoe.data_shards.sample import Extent, StoredStudy


class ShardSet:
    """Several shard sets as one sequence of studies; use `ShardSet.open`."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._infos = [read_dataset(folder) for folder in folders]
        self._indexes = [Index.open(folder / INDEX) for folder in folders]
        self._ends = list(itertools.accumulate(len(index) for index in self._indexes))
        self._archives: dict[Path, memoryview] = {}
        self._check()

    @classmethod
    def open(cls, *paths: Path | str) -> "ShardSet":
        """Open finished shard sets.

        Raises:
            UsageError: If a path is no finished shard set, or the sets were preprocessed
                differently.
            DataError: If a set is damaged.
        """
        if not paths:
            raise UsageError("no shard set given")
        return cls([Path(path) for path in paths])

    def __len__(self) -> int:
        """Studies of all sets."""
        return self._ends[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its paths; the copy maps the shards anew."""
        return ShardSet.open, self._folders

    @property
    def sizes(self) -> list[int]:
        """Studies of each set."""
        return [len(index) for index in self._indexes]

    @property
    def info(self) -> dict[str, Any]:
        """`dataset.json`; of several sets the settings they share and the joint counts."""
        counts: dict[str, int] = {}
        for info in self._infos:
            for name, count in info["sequences"].items():
                counts[name] = counts.get(name, 0) + count
        return {
            **self._infos[0],
            "studies": len(self),
            "labelled": sum(info["labelled"] for info in self._infos),
            "sequences": counts,
            "shards": [shard for info in self._infos for shard in info["shards"]],
        }

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the shards, in hexadecimal."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.info["shards"]:
            digest.update(shard["sha256"].encode())
        return digest.hexdigest()

    def entry(self, i: int) -> StudyEntry:
        """What the index knows of study `i`."""
        part, row = self._locate(i)
        return self._indexes[part].entry(row)

    def position(self, key: str) -> int:
        """The number of the first study with this key.

        Raises:
            DataError: If there is none.
        """
        for index, end in zip(self._indexes, self._ends, strict=True):
            if (row := index.position(key)) is not None:
                return end - len(index) + row
        raise DataError(f"{key}: no such study in {', '.join(map(str, self._folders))}")

    def affine(self, i: int) -> np.ndarray:
        """[4, 4] float64, voxel of study `i` → RAS+ mm."""
        return np.array(self.record(i)["affine"], np.float64)

    def record(self, i: int) -> Mapping[str, Any]:
        """The JSON record of study `i`: grid, sequences, history."""
        return self.study(i).record

    def study(self, i: int) -> StoredStudy:
        """Study `i` as it is stored.

        Raises:
            DataError: If the shard is missing or damaged there.
        """
        piece = self.bytes_of(i)
        name = f"{self.place(i)[0]}, study {i}"
        found = {
            member.name.partition(".")[2]: member.content
            for member in tar.walk(piece, 0, len(piece), name)
        }
        if "json" not in found:
            raise DataError(f"{name}: has no record; gliomoe shards verify tells more")
        return StoredStudy(found, parse_record(found["json"], name))

    def read(
        self,
        i: int,
        start: Extent | None = None,
        size: Extent | None = None,
        sequences: Sequence[str] | None = None,
        seg: bool = True,
    ) -> StudySample:
        """A study or a crop of it, normalised (see `gliomoe.data_shards.intensity`).

        Args:
            i: Study.
            start: First voxel along D, H, W, which may lie outside the grid; None is 0, 0, 0.
            size: Voxels along D, H, W; None goes to the grid's end. What lies outside is 0.
            sequences: Canonical names in the order wanted; None takes all.
            seg: Whether to read the labels, if the study has any.

        Raises:
            DataError: If the study lacks a sequence or is damaged.
        """
        return self.study(i).read(start, size, sequences, seg)

    def place(self, i: int) -> tuple[Path, Place]:
        """The shard of study `i` and where in it the study lies."""
        part, row = self._locate(i)
        place = self._indexes[part].place(row)
        return self._folders[part] / self._infos[part]["shards"][place.shard]["name"], place

    def bytes_of(self, i: int) -> memoryview:
        """All members of study `i` as they lie in the shard.

        Raises:
            DataError: If the shard is missing or too short.
        """
        path, place = self.place(i)
        archive = self._archive(path)
        if place.offset + place.length > len(archive):
            raise DataError(f"{path}: ends before study {self.entry(i).key}; fetch it again")
        return archive[place.offset : place.offset + place.length]

    def _locate(self, i: int) -> tuple[int, int]:
        """Set and row of study `i`."""
        if not 0 <= i < len(self):
            raise IndexError(f"study {i} of {len(self)}")
        part = bisect_right(self._ends, i)
        return part, i - (self._ends[part] - len(self._indexes[part]))

    def _archive(self, path: Path) -> memoryview:
        """A shard, mapped on first use."""
        if path not in self._archives:
            self._archives[path] = tar.open_archive(path)
        return self._archives[path]

    def _check(self) -> None:
        """Refuse sets that do not belong together or are not whole."""
        for folder, info, index in zip(self._folders, self._infos, self._indexes, strict=True):
            if len(index) != info["studies"]:
                raise DataError(f"{folder}: index and {DATASET} disagree; build the set again")
            if info["preprocess"] != self._infos[0]["preprocess"]:
                raise UsageError(
                    f"{folder}: preprocessed otherwise than {self._folders[0]}; "
                    "build both with the same settings"
                )
        if not len(self):
            raise DataError(f"{self._folders[0]}: holds no study")
