"""`StreamSet`: the studies of shard sets read from first to last, where range reads are slow.

Sample number n is a study by a rule, without a list of studies. An epoch is all shards one after
another, in an order of its own; it is cut into `lanes` equal ranges, and sample n is the next study
of lane n mod `lanes`. So each process that keeps to its own lanes reads forward only, all lanes
have equally many studies, and the sample number is all that it takes to go on, with any number of
processes that divides the lanes. The remainder, fewer studies than lanes, is left out of an epoch;
it is another one in each.

Notable: members are taken as bytes and decoded here. `webdataset`'s own `.decode()` would run
what some members contain, so it is never called, and `WDS_SECURE` forbids it to the process. Its
tar reader ends quietly where a shard is cut off and passes over links, so `tar.read_members` takes
its place, and the studies of each shard are counted.
"""

import itertools
import os
import re
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.dataset import file_info, fingerprint_of, join_infos, read_dataset
from gliomoe.data_shards.format.record import SEG, frame_suffix, parse_record
from gliomoe.data_shards.order import seed_for
from gliomoe.data_shards.reading.sample import StoredStudy
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.data_shards.storage.store import FileInfo, LocalStore, Source, open_source

os.environ["WDS_SECURE"] = "1"  # read once, when webdataset is imported

_MEMBER = re.compile(r"([a-z0-9_-]+)\.[a-z0-9]+(\.[a-z0-9]+)?")


class StreamSet:
    """Several shard sets as one endless sequence of studies; use `StreamSet.open`."""

    def __init__(
        self,
        places: Sequence[Path | str],
        lanes: int,
        seed: int,
        window: int,
        storage: StorageConfig,
        allow_pipes: bool,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "lanes": lanes,
            "seed": seed,
            "window": window,
            "storage": storage,
            "allow_pipes": allow_pipes,
        }
        self._places = tuple(map(str, places))
        self._seed, self._window = seed, window
        sources = [open_source(place, storage, allow_pipes) for place in places]
        infos = [read_dataset(source) for source in sources]
        self._info = join_infos(self._places, infos)
        self._shards: list[_Shard] = []
        for source, info in zip(sources, infos, strict=True):
            for shard in info["shards"]:
                last = self._shards[-1] if self._shards else None
                first = last.first + last.studies if last else 0
                self._shards.append(_Shard(source, file_info(shard), first, shard["studies"]))
        self._depth = len(self) // lanes
        if not self._depth:
            raise UsageError(f"{len(self)} studies are too few for {lanes} lanes; take fewer lanes")
        self._lanes = [_Lane() for _ in range(lanes)]
        self._order = lru_cache(2)(self._shuffle)

    @classmethod
    def open(
        cls,
        *places: Path | str,
        lanes: int = 1,
        seed: int = 0,
        window: int = 1,
        storage: StorageConfig | None = None,
        allow_pipes: bool = False,
    ) -> "StreamSet":
        """Open finished shard sets.

        Args:
            places: Folders, URLs, and `pipe:COMMAND` with `{}` for the name of a file.
            lanes: Ranges that are read side by side; each has a stream of its own and begins
                within a shard, so they should be few against the shards.
            seed: Decides the order.
            window: So many studies of a lane are shuffled among each other and kept in memory.
            storage: How URLs are read.
            allow_pipes: Whether commands may be run.

        Raises:
            UsageError: If a place is no finished shard set, the sets were preprocessed
                differently, or there are fewer studies than lanes.
            DataError: If `dataset.json` is damaged or cannot be read.
        """
        if not places:
            raise UsageError("no shard set given")
        if lanes < 1 or window < 1:
            raise UsageError("lanes and window must be at least 1")
        return cls(places, lanes, seed, window, storage or StorageConfig(), allow_pipes)

    def __len__(self) -> int:
        """Studies of all sets."""
        return self._info["studies"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its places; the copy opens its streams anew."""
        return partial(StreamSet.open, **self._arguments), self._places

    @property
    def info(self) -> dict[str, Any]:
        """As of `ShardSet`."""
        return self._info

    @property
    def fingerprint(self) -> str:
        """As of `ShardSet`."""
        return fingerprint_of(self._info)

    @property
    def forkable(self) -> bool:
        """As of `ShardSet`."""
        return all(isinstance(shard.source, LocalStore) for shard in self._shards)

    @property
    def epoch(self) -> int:
        """Samples of an epoch: as many studies as the lanes share evenly."""
        return self._depth * len(self._lanes)

    def study(self, n: int) -> StoredStudy:
        """The study of sample number `n`; cheap if `n` goes up within each lane.

        Raises:
            DataError: If that study, or its shard before it, is damaged or cannot be read. The
                studies of all other shards stay where they are.
            ValueError: If `n` is negative.
        """
        epoch, lane, window, wanted = self._spots(n)
        return self._lanes[lane].study(epoch, window, wanted)

    def number(self, n: int) -> int:
        """The study of sample number `n`, counted through all sets."""
        _, _, window, wanted = self._spots(n)
        shard, number = window[wanted]
        return shard.first + number

    def where(self, n: int) -> str:
        """Shard and study of sample number `n`, for messages."""
        _, _, window, wanted = self._spots(n)
        shard, number = window[wanted]
        return f"{shard.name}, study {number} of {shard.studies}"

    def _spots(self, n: int) -> tuple[int, int, list["Spot"], int]:
        """Epoch, lane, the studies of the window, and which of them sample `n` is."""
        if n < 0:
            raise ValueError(f"sample {n} does not exist")
        epoch, position = divmod(n, self.epoch)
        row, lane = divmod(position, len(self._lanes))
        first = row - row % self._window
        window = range(first, min(first + self._window, self._depth))
        if len(window) > 1:
            row = self._shuffled(window, "window", epoch, lane)[row - first]
        order, ends = self._order(epoch)
        start = lane * self._depth
        return epoch, lane, [_locate(start + other, order, ends) for other in window], row - first

    def _shuffle(self, epoch: int) -> tuple[list["_Shard"], list[int]]:
        """The shards of an epoch, and how many studies there are up to the end of each."""
        numbers = self._shuffled(range(len(self._shards)), "shards", epoch)
        order = [self._shards[number] for number in numbers]
        return order, list(itertools.accumulate(shard.studies for shard in order))

    def _shuffled(self, numbers: range, *stream: int | str) -> list[int]:
        """The numbers in an order that depends on the seed and the stream alone."""
        return sorted(numbers, key=lambda number: seed_for(self._seed, *stream, number))


class _Shard:
    """A shard and where it is read from."""

    def __init__(self, source: Source, file: FileInfo, first: int, studies: int) -> None:
        self.source, self.file = source, file
        self.first, self.studies = first, studies
        self.name = source.place(file.name)


Spot = tuple[_Shard, int]
"""A study by its number in a shard."""


def _locate(position: int, order: Sequence[_Shard], ends: Sequence[int]) -> Spot:
    """The study at a position of an epoch."""
    turn = bisect_right(ends, position)
    return order[turn], position - (ends[turn] - order[turn].studies)


class _Lane:
    """One forward reader: an open shard, and the studies of the window that it is in."""

    def __init__(self) -> None:
        self._epoch, self._process = -1, 0
        self._window: list[Spot] = []
        self._read: list[StoredStudy | str] = []
        self._damaged: dict[_Shard, tuple[int, str]] = {}
        self._shard: _Shard | None = None
        self._next = 0
        self._studies: Generator[dict[str, Any], None, None] | None = None

    def study(self, epoch: int, window: list[Spot], wanted: int) -> StoredStudy:
        """A study of a window, read with those before it.

        Raises:
            DataError: If that study is damaged; the same each time that it is asked for.
        """
        if self._process != os.getpid():  # a forked process must not move its parent's streams
            self._studies, self._process = None, os.getpid()
        if epoch != self._epoch:  # what could not be read may have been repaired
            self._epoch, self._window, self._damaged = epoch, [], {}
        if window != self._window:
            self._window, self._read = window, []
        for spot in window[len(self._read) : wanted + 1]:
            try:
                self._read.append(self._take(*spot))
            except DataError as error:
                self._read.append(str(error))
        found = self._read[wanted]
        if isinstance(found, str):
            raise DataError(found)
        return found

    def _take(self, shard: _Shard, number: int) -> StoredStudy:
        """A study of a shard, read on from where the lane is if that is before it."""
        first_bad, reason = self._damaged.get(shard, (shard.studies, ""))
        if number >= first_bad:
            raise DataError(reason)
        if self._studies is None or self._shard is not shard or self._next > number:
            if self._studies:
                self._studies.close()
            self._shard, self._next, self._studies = shard, 0, _studies(shard)
        try:
            while self._next <= number:
                members = next(self._studies)
                self._next += 1
        except DataError as error:
            self._studies = None
            self._damaged[shard] = (self._next, str(error))
            raise
        name = f"{shard.name}, study {members['__key__']}"
        members = {key: value for key, value in members.items() if not key.startswith("__")}
        record = parse_record(members.get("json", b""), name)
        wanted = [frame_suffix(sequence) for sequence in record["sequences"]]
        wanted += [SEG] if record["has_seg"] else []
        if missing := [suffix for suffix in wanted if suffix not in members]:
            raise DataError(f"{name}: lacks {', '.join(missing)}; fetch the shard again")
        return StoredStudy(members, record)


def _studies(shard: _Shard) -> Generator[dict[str, Any], None, None]:
    """Suffix → bytes of each study of a shard, exactly as many as it should hold."""
    from webdataset.tariterators import group_by_keys

    try:
        with shard.source.stream(shard.file.name) as stream:
            members = tar.read_members(stream, shard.file.bytes, shard.name)
            studies = group_by_keys(_checked(members, shard.name))
            for count in range(shard.studies):
                study = next(studies, None)
                if study is None:
                    raise DataError(
                        f"{shard.name}: {count} of {shard.studies} studies; fetch the shard again"
                    )
                if count == shard.studies - 1 and next(studies, None):
                    raise DataError(
                        f"{shard.name}: more than {shard.studies} studies; fetch the shard again"
                    )
                yield study
    except FileNotFoundError as error:
        raise DataError(f"{shard.name}: is missing; fetch it again") from error
    except OSError as error:
        raise DataError(f"{shard.name}: cannot be read ({error}); fetch it again") from error


def _checked(members: Iterator[tuple[str, bytes]], shard: str) -> Iterator[dict[str, Any]]:
    """Members as `webdataset` takes them; keys must ascend, as the builder writes them."""
    key, names = "", set[str]()
    try:
        for name, content in members:
            found = _MEMBER.fullmatch(name)
            if found is None:
                raise DataError(f"{shard}: {name!r} is no name of a member; fetch the shard again")
            if found[1] != key:
                if found[1] < key:
                    raise DataError(f"{shard}: {name}, twice or out of order; fetch it again")
                key, names = found[1], set()
            if name in names:
                raise DataError(f"{shard}: {name} is there twice; fetch the shard again")
            names.add(name)
            yield {"fname": name, "data": content, "__url__": shard}
    except DataError:
        yield {}  # ends the study before the damage, which may be whole
        raise
    yield {}
