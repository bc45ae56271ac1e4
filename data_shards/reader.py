"""A run's studies by sample number, whichever way they are stored."""

from collections.abc import Sequence
from typing import Protocol

from gliomoe.data_shards.indexed import ShardSet
from gliomoe.data_shards.order import Mixture, Order
from gliomoe.data_shards.sample import StoredStudy


class Reader(Protocol):
    """What a training run reads from: a pure function of the sample number."""

    stride: int
    """`study(n + stride)` is as easily read and stands in for a damaged study."""

    def study(self, n: int) -> StoredStudy:
        """The study of sample number `n`; `DataError` if it cannot be read."""
        ...

    def where(self, n: int) -> str:
        """Shard and study of sample number `n`, for messages."""
        ...


class IndexedReader:
    """Any study at any time, in the order of a run.

    Args:
        shards: One or several shard sets.
        seed: The run's seed.
        weights: Share of the samples of each set; none takes every study as often.
        block: Neighbouring studies that stay together (see `Order`).
        window: Studies that are shuffled among each other where blocks stay together.
        lanes: Places of a batch that a process keeps; counts where blocks stay together.

    Raises:
        ValueError: If the weights do not fit the sets, or there are fewer studies than lanes.
    """

    def __init__(
        self,
        shards: ShardSet,
        seed: int,
        weights: Sequence[float] = (),
        block: int = 1,
        window: int = 256,
        lanes: int = 1,
    ):
        self.shards = shards
        self.stride = lanes if block > 1 else 1

        def order(studies: int) -> Order:
            return Order(studies, seed, block, window, self.stride)

        self._order: Order | Mixture = (
            Mixture([order(studies) for studies in shards.sizes], weights, seed)
            if weights
            else order(len(shards))
        )

    def number(self, n: int) -> int:
        """The study of sample number `n`, counted through all sets."""
        return self._order.study(n)

    def study(self, n: int) -> StoredStudy:
        """The study of sample number `n`; `DataError` if it cannot be read."""
        return self.shards.study(self.number(n))

    def where(self, n: int) -> str:
        """Shard and study of sample number `n`, for messages."""
        study = self.number(n)
        return f"{self.shards.place(study)[0]}, study {self.shards.entry(study).key}"
