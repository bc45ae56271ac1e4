"""`ShardSet`: studies of one or several shard sets by number, any crop decoded in place.

Notable: sets lie in folders, object stores or on web servers alike. Local shards are mapped into
memory and stay closed files; a crop touches the blocks that it needs. A `ShardSet` can be pickled,
so the workers of a loader each take a copy; only one of local sets can also be forked.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.dataset import (
    DATASET,
    file_info,
    fingerprint_of,
    join_infos,
    read_dataset,
)
from gliomoe.data_shards.format.index import Index, Place, StudyEntry
from gliomoe.data_shards.format.record import parse_record
from gliomoe.data_shards.identity.fingerprints import FINGERPRINTS, Fingerprints
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.reading.sample import Extent, StoredStudy
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.data_shards.storage.store import FileInfo, LocalStore, open_store


class ShardSet:
    """Several shard sets as one sequence of studies; use `ShardSet.open`."""

    def __init__(self, places: Sequence[Path | str], storage: StorageConfig) -> None:
        self._places, self._storage = tuple(map(str, places)), storage
        self._stores = [open_store(place, storage) for place in places]
        infos = [read_dataset(store) for store in self._stores]
        self._info = join_infos(self._places, infos)
        self._shards = [[file_info(shard) for shard in info["shards"]] for info in infos]
        self._signatures = [info.get("fingerprints") for info in infos]
        self._indexes = []
        for store, info in zip(self._stores, infos, strict=True):
            index = Index.open(store.local(file_info(info["index"])))
            if len(index) != info["studies"]:
                raise DataError(f"{store.name}: index and {DATASET} disagree; build the set again")
            self._indexes.append(index)
        self._ends = list(itertools.accumulate(len(index) for index in self._indexes))

    @classmethod
    def open(cls, *places: Path | str, storage: StorageConfig | None = None) -> "ShardSet":
        """Open finished shard sets.

        Args:
            places: Folders, and URLs that begin with s3, gs, az, http or https.
            storage: How URLs are read.

        Raises:
            UsageError: If a place is no finished shard set, or the sets were preprocessed
                differently.
            DataError: If a set is damaged or cannot be read.
        """
        if not places:
            raise UsageError("no shard set given")
        return cls(places, storage or StorageConfig())

    def __len__(self) -> int:
        """Studies of all sets."""
        return self._ends[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its places; the copy opens the shards anew."""
        return partial(ShardSet.open, storage=self._storage), self._places

    @property
    def sizes(self) -> list[int]:
        """Studies of each set."""
        return [len(index) for index in self._indexes]

    @property
    def info(self) -> dict[str, Any]:
        """`dataset.json`; of several sets the settings they share and the joint counts."""
        return self._info

    @property
    def fingerprint(self) -> str:
        """Hash of everything in the shards, in hexadecimal."""
        return fingerprint_of(self.info)

    @property
    def forkable(self) -> bool:
        """Whether a forked process can read it; otherwise use forkserver or spawn."""
        return all(isinstance(store, LocalStore) for store in self._stores)

    @property
    def block(self) -> int:
        """Neighbouring studies that are best read soon after each other; 1 where it is all one."""
        if self.forkable:
            return 1
        size = sum(shard["bytes"] for shard in self.info["shards"]) / len(self)
        return max(1, min(len(self), round(self._storage.block_bytes / size)))

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
        raise DataError(f"{key}: no such study in {', '.join(self._places)}")

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

    def seen(self, studies: Iterable[int]) -> Seen:
        """What tells some studies again, read from index and signatures alone.

        Raises:
            DataError: If a set has no signatures, or they are damaged.
        """
        wanted = np.unique(np.fromiter(studies, np.int64))
        contents = {bytes.fromhex(self.entry(int(i)).fingerprint) for i in wanted}
        scans: set[bytes] = set()
        for store, file, end, size in zip(
            self._stores, self._signatures, self._ends, self.sizes, strict=True
        ):
            own = wanted[(wanted >= end - size) & (wanted < end)] - (end - size)
            if file is None:
                raise DataError(f"{store.name}: has no {FINGERPRINTS}; build the set again")
            rows = Fingerprints.open(store.local(file_info(file))).of_studies(own)
            scans |= {bytes([s]) + code.tobytes() for s, code in zip(*rows, strict=True)}
        return Seen(frozenset(contents), frozenset(scans))

    def place(self, i: int) -> tuple[str, Place]:
        """The shard of study `i`, a path or URL, and where in it the study lies.

        Raises:
            DataError: If the index names a shard that is none of the set.
        """
        part, row = self._locate(i)
        file, place = self._shard_of(part, row)
        return self._stores[part].place(file.name), place

    def bytes_of(self, i: int) -> memoryview:
        """All members of study `i` as they lie in the shard.

        Raises:
            DataError: If the shard is missing, too short or cannot be read.
        """
        part, row = self._locate(i)
        file, place = self._shard_of(part, row)
        what = f"study {self._indexes[part].entry(row).key}"
        return self._stores[part].range(file, place.offset, place.length, what)

    def _shard_of(self, part: int, row: int) -> tuple[FileInfo, Place]:
        """Shard and place of a row of a set."""
        place, shards = self._indexes[part].place(row), self._shards[part]
        if place.shard >= len(shards):
            raise DataError(
                f"{self._stores[part].name}: index and {DATASET} disagree; build the set again"
            )
        return shards[place.shard], place

    def _locate(self, i: int) -> tuple[int, int]:
        """Set and row of study `i`."""
        if not 0 <= i < len(self):
            raise IndexError(f"study {i} of {len(self)}")
        part = bisect_right(self._ends, i)
        return part, i - (self._ends[part] - len(self._indexes[part]))
