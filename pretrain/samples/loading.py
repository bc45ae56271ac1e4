"""Which samples a process reads, in which order: pure functions of (step, rank, world).

A step takes the next `batch` samples of the run. They are worked through in `accumulation` parts,
and each part is cut into equal pieces, one a rank: whatever the number of ranks, a part holds the
same samples, so that its contrastive negatives are the same. To resume, the step is enough.
"""

import os
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.pretrain.faults.progress import Progress
from gliomoe.pretrain.faults.signals import SIGNALS, end_with_parent
from gliomoe.pretrain.samples.views import PairBatch, ViewPair, collate_pairs

PREFETCH = 4
"""Parts that a reading process prepares ahead."""


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


class Samples(Protocol):
    """Sample number → sample, and where that lies."""

    @property
    def forkable(self) -> bool:
        """Whether a forked process can read; otherwise use forkserver or spawn."""
        ...

    def __getitem__(self, number: int) -> ViewPair:
        """Read a sample."""
        ...

    def where(self, number: int) -> str:
        """Shard and study of a sample, for messages."""
        ...


class _Watched(Dataset[ViewPair]):
    """Samples whose readers leave word, in shared memory, of which one they are at."""

    def __init__(self, samples: Samples, workers: int):
        self._samples = samples
        self._at = torch.full((max(1, workers),), -1).share_memory_()

    def __getitem__(self, number: int) -> ViewPair:
        """Read a sample."""
        worker = get_worker_info()
        at = worker.id if worker else 0
        self._at[at] = number
        sample = self._samples[number]
        self._at[at] = -1
        return sample

    def reads(self, worker: int) -> bool:
        """Whether a reader is in the middle of a study."""
        return int(self._at[worker]) >= 0

    def doing(self, worker: int) -> str:
        """What a reader was at when it was last heard of."""
        number = int(self._at[worker])
        return self._samples.where(number) if number >= 0 else "between two studies"


def load_parts(
    samples: Samples,
    placement: Placement,
    start: int,
    stop: int,
    workers: int,
    pin: bool = False,
    timeout: float = 0,
) -> Generator[PairBatch, None, None]:
    """The parts of this rank, from step `start` up to `stop`.

    Args:
        samples: Sample number → sample.
        placement: Share of this process.
        start: First step.
        stop: Step after the last.
        workers: Reading processes; the order does not depend on them.
        pin: Put batches into page-locked memory.
        timeout: Seconds to wait for a batch; 0 waits for ever.

    Raises:
        DataError: If reading fails for good, a reader dies, or none delivers in time; the last two
            with shard and study of each reader.
    """
    dataset = _Watched(samples, workers)
    loader: DataLoader[ViewPair] = DataLoader(
        dataset,
        batch_sampler=StepSampler(placement, start, stop),
        collate_fn=collate_pairs,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=PREFETCH if workers else None,
        timeout=timeout if workers else 0,
        multiprocessing_context="forkserver" if workers and not samples.forkable else None,
        worker_init_fn=_follow,
        generator=torch.Generator(),  # keeps the loader's own seed out of the global generator
    )
    iterator = iter(loader)
    patient = True
    try:
        yield from iterator
    except (DataError, UsageError) as error:
        # A worker's error arrives with its traceback in the text; its last line is the message.
        kind = type(error)
        text = str(error).strip().splitlines()[-1]
        raise kind(text.rsplit(f"{kind.__name__}: ", 1)[-1]) from error
    except RuntimeError as error:
        patient = False
        if not isinstance(iterator, _MultiProcessingDataLoaderIter):
            raise
        raise _lost(iterator, dataset, error) from error
    except KeyboardInterrupt:
        patient = False
        raise
    finally:
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            _end(iterator, dataset, patient)


def _end(iterator: _MultiProcessingDataLoaderIter, dataset: _Watched, patient: bool) -> None:
    """End the readers now, not when the last traceback that refers to them is gone.

    The interpreter would wait for them, since they do not listen to signals.

    Args:
        iterator: The loader's.
        dataset: What the readers read.
        patient: Let them finish what they are at, for up to ten seconds each.
    """
    # Otherwise torch's handler takes the end of a reader for a fault.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for i, reader in enumerate(iterator._workers):
            if not patient and dataset.reads(i):
                reader.kill()
        iterator._shutdown_workers()
        for reader in iterator._workers:
            if reader.is_alive():
                reader.kill()
                reader.join()
    finally:
        signal.signal(signal.SIGCHLD, handler)


class Parts:
    """The parts of this rank, of which the next can be waited for before it is taken.

    Args:
        parts: From `load_parts`.
        progress: Told what this process is at.
    """

    def __init__(self, parts: Generator[PairBatch, None, None], progress: Progress):
        self._parts, self._progress = parts, progress
        self._next: PairBatch | None = None
        self.waited = 0.0
        """Seconds spent waiting since `reset_clock`."""

    def wait(self) -> None:
        """Have the next part at hand."""
        if self._next is None:
            self._progress.at("waiting for data")
            begun = time.perf_counter()
            self._next = next(self._parts)
            self.waited += time.perf_counter() - begun
            self._progress.at("computing")

    def take(self) -> PairBatch:
        """The next part."""
        self.wait()
        part, self._next = self._next, None
        assert part is not None
        return part

    def reset_clock(self) -> float:
        """The seconds waited; counts anew."""
        waited, self.waited = self.waited, 0.0
        return waited

    def close(self) -> None:
        """End the readers."""
        self._parts.close()


def _lost(
    iterator: _MultiProcessingDataLoaderIter, dataset: _Watched, error: RuntimeError
) -> Exception:
    """The error to raise when readers died or hang; any other is returned as it is."""
    readers = list(enumerate(iterator._workers))
    if dead := [(i, reader) for i, reader in readers if not reader.is_alive()]:
        found = "; ".join(f"{_ending(r.exitcode)} at {dataset.doing(i)}" for i, r in dead)
        return DataError(
            f"a reading process died, {found}; perhaps for want of memory: lower data.workers, "
            "the same command continues"
        )
    if "timed out" in str(error):
        found = "; ".join(dataset.doing(i) for i, _ in readers)
        return DataError(
            f"no batch within data.timeout, readers are at {found}; "
            "look at the storage, the same command continues"
        )
    return error


def _ending(code: int | None) -> str:
    """How a process ended."""
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with code {code}"


def _follow(worker: int) -> None:
    """Only the training process decides when to stop; its readers end with it, however it ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(os.getppid(), signal.SIGKILL)
