"""A run's studies by sample number, whichever way they are stored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.order import Mixture, Order
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.sample import StoredStudy
from gliomoe.data_shards.storage.config import StorageConfig

_STREAM_WINDOW = 4


@dataclass(frozen=True)
class OrderConfig:
    """In which order a run takes its studies."""

    reader: Literal["indexed", "streaming"] = "indexed"
    """`indexed` reads any study at any time; `streaming` reads shards from first to last, for
    servers without ranges and slow links."""
    weights: tuple[float, ...] = ()
    """Share of the samples of each shard set; without it every study comes as often."""
    block: int = 0
    """Neighbouring studies that stay together; 0 takes 1 in folders, and as many as a request to
    an object store brings. Any more than 1 leaves out the remainder of studies by lanes."""
    window: int = 0
    """Studies that are shuffled among each other where blocks stay together, and in each lane of a
    stream, which keeps them in memory; 0 takes two blocks, or 4."""

    def __post_init__(self) -> None:
        """Refuse what gives no order."""
        if not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError("weights must be positive")
        if self.block < 0 or self.window < 0:
            raise ValueError("block and window must not be negative")


class Reader(Protocol):
    """What a training run reads from: a pure function of the sample number."""

    stride: int
    """`study(n + stride)` is as easily read and stands in for a damaged study."""

    @property
    def forkable(self) -> bool:
        """Whether a forked process can read; otherwise use forkserver or spawn."""
        ...

    def number(self, n: int) -> int:
        """The study of sample number `n`, counted through all sets."""
        ...

    def study(self, n: int) -> StoredStudy:
        """The study of sample number `n`; `DataError` if it cannot be read."""
        ...

    def where(self, n: int) -> str:
        """Shard and study of sample number `n`, for messages."""
        ...


def open_reader(
    places: Sequence[Path | str],
    order: OrderConfig,
    seed: int,
    lanes: int,
    storage: StorageConfig | None = None,
    allow_pipes: bool = False,
) -> Reader:
    """Open shard sets for a run.

    Args:
        places: Folders and URLs; with `streaming` also `pipe:COMMAND`.
        order: In which order studies are taken.
        seed: The run's seed.
        lanes: Places of a batch; each process keeps to its own.
        storage: How URLs are read.
        allow_pipes: Whether commands may be run.

    Raises:
        UsageError: If a place is no finished set, there are fewer studies than lanes where lanes
            are used, or the weights do not fit the places.
        DataError: If a set is damaged or cannot be read.
    """
    if order.weights and len(order.weights) != len(places):
        raise UsageError(f"{len(order.weights)} weights for {len(places)} shard sets; one for each")
    if order.reader == "indexed":
        return IndexedReader(ShardSet.open(*places, storage=storage), order, seed, lanes)
    return StreamReader(places, order, seed, lanes, storage, allow_pipes)


class IndexedReader:
    """Any study at any time.

    Args:
        shards: One or several shard sets.
        order: In which order studies are taken.
        seed: The run's seed.
        lanes: Places of a batch; they count where blocks stay together.

    Raises:
        UsageError: If there are fewer studies than lanes.
    """

    def __init__(self, shards: ShardSet, order: OrderConfig, seed: int, lanes: int = 1):
        self.shards = shards
        sizes = shards.sizes if order.weights else [len(shards)]
        block = order.block or (shards.block if min(sizes) >= lanes else 1)
        window = order.window or 2 * block
        self.stride = lanes if block > 1 else 1
        if min(sizes) < self.stride:
            raise UsageError(
                f"{min(sizes)} studies are too few for a batch of {lanes} in blocks; "
                "set block to 1 or the batch lower"
            )
        self._orders = [Order(size, seed, block, window, self.stride) for size in sizes]
        self._firsts = [sum(sizes[:part]) for part in range(len(sizes))]
        self._mixture = Mixture(order.weights, seed, self.stride) if order.weights else None

    @property
    def forkable(self) -> bool:
        """Whether a forked process can read."""
        return self.shards.forkable

    def number(self, n: int) -> int:
        """The study of sample number `n`, counted through all sets."""
        part, own = self._mixture.draw(n) if self._mixture else (0, n)
        return self._firsts[part] + self._orders[part].study(own)

    def study(self, n: int) -> StoredStudy:
        """The study of sample number `n`; `DataError` if it cannot be read."""
        return self.shards.study(self.number(n))

    def where(self, n: int) -> str:
        """Shard and study of sample number `n`, for messages."""
        study = self.number(n)
        return f"{self.shards.place(study)[0]}, study {self.shards.entry(study).key}"


class StreamReader:
    """Shards from first to last, in as many lanes as a batch has places.

    Args:
        places: Folders, URLs and `pipe:COMMAND`.
        order: In which order studies are taken.
        seed: The run's seed.
        lanes: Places of a batch.
        storage: How URLs are read.
        allow_pipes: Whether commands may be run.

    Raises:
        UsageError, DataError: As of `open_reader`.
    """

    def __init__(
        self,
        places: Sequence[Path | str],
        order: OrderConfig,
        seed: int,
        lanes: int,
        storage: StorageConfig | None = None,
        allow_pipes: bool = False,
    ):
        from gliomoe.data_shards.reading.streaming import StreamSet

        self.stride = lanes
        parts = [(place,) for place in places] if order.weights else [tuple(places)]
        opened = partial(
            StreamSet.open,
            lanes=lanes,
            seed=seed,
            window=order.window or _STREAM_WINDOW,
            storage=storage,
            allow_pipes=allow_pipes,
        )
        self._streams = [opened(*part) for part in parts]
        self._mixture = Mixture(order.weights, seed, lanes) if order.weights else None

    @property
    def forkable(self) -> bool:
        """Whether a forked process can read."""
        return all(stream.forkable for stream in self._streams)

    def number(self, n: int) -> int:
        """The study of sample number `n`, counted through all sets."""
        part, own = self._draw(n)
        before = sum(len(stream) for stream in self._streams[:part])
        return before + self._streams[part].number(own)

    def study(self, n: int) -> StoredStudy:
        """The study of sample number `n`; cheap if `n` goes up within each lane."""
        part, own = self._draw(n)
        return self._streams[part].study(own)

    def where(self, n: int) -> str:
        """Shard and study of sample number `n`, for messages."""
        part, own = self._draw(n)
        return self._streams[part].where(own)

    def _draw(self, n: int) -> tuple[int, int]:
        """The stream of sample number `n`, and its number there."""
        return self._mixture.draw(n) if self._mixture else (0, n)
