"""Which samples a process reads, in which order: pure functions of (step, rank, world).

A step takes the next `batch` samples of the run. They are worked through in `accumulation` parts,
and each part is cut into equal pieces, one a rank: whatever the number of ranks, a part holds the
same samples, so that its contrastive negatives are the same. To resume, the step is enough.
"""

import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from gliomoe.data_shards.errors import DataError
from gliomoe.pretrain.signals import SIGNALS
from gliomoe.pretrain.views import PairBatch, ViewPair, collate_pairs

_PREFETCH = 4


@dataclass(frozen=True)
class Placement:
    """The share of a process in every batch."""

    batch: int
    """Samples of a step, over all ranks."""
    accumulation: int
    """Parts of a step."""
    rank: int = 0
    world: int = 1

    @property
    def micro(self) -> int:
        """Samples of one part on one rank."""
        return self.batch // (self.accumulation * self.world)

    def numbers(self, step: int, part: int) -> range:
        """Sample numbers of a part of a step on this rank."""
        first = step * self.batch + (part * self.world + self.rank) * self.micro
        return range(first, first + self.micro)


class StepSampler(Sampler[list[int]]):
    """Sample numbers, part after part, from one step up to another."""

    def __init__(self, placement: Placement, start: int, stop: int):
        self.placement, self.start, self.stop = placement, start, stop

    def __iter__(self) -> Iterator[list[int]]:
        """One list for each part."""
        for step in range(self.start, self.stop):
            for part in range(self.placement.accumulation):
                yield list(self.placement.numbers(step, part))

    def __len__(self) -> int:
        """Number of parts."""
        return (self.stop - self.start) * self.placement.accumulation


def load_parts(
    dataset: Dataset[ViewPair],
    placement: Placement,
    start: int,
    stop: int,
    workers: int,
    pin: bool = False,
) -> Generator[PairBatch, None, None]:
    """The parts of this rank, from step `start` up to `stop`.

    Args:
        dataset: Sample number → sample.
        placement: Share of this process.
        start: First step.
        stop: Step after the last.
        workers: Reading processes; the order does not depend on them.
        pin: Put batches into page-locked memory.

    Raises:
        DataError: If reading fails for good.
    """
    loader: DataLoader[ViewPair] = DataLoader(
        dataset,
        batch_sampler=StepSampler(placement, start, stop),
        collate_fn=collate_pairs,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # keeps the loader's own seed out of the global generator
    )
    iterator = iter(loader)
    try:
        yield from iterator
    except DataError as error:
        # A worker's error arrives with its traceback in the text; its last line is the message.
        text = str(error).strip().splitlines()[-1]
        raise DataError(text.rsplit("DataError: ", 1)[-1]) from error
    finally:
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            # Now, not when the last traceback that refers to it is gone: the interpreter would
            # wait for workers that do not listen to signals.
            iterator._shutdown_workers()


def _ignore_signals(worker: int) -> None:
    """Only the training process decides when to stop; its readers end with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
