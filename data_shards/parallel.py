"""Work shared out to processes, results in order, and none of them left behind.

Notable: workers come from a fork server, so that no thread of the caller (torch, OpenMP) is
forked; each watches its parent and ends with it, even when that is killed. When a worker dies the
whole pool is lost, so whatever was under way is done again by a single one, and the job that ends
this one too is to blame.
"""

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Barrier
from typing import TypeVar

from gliomoe.data_shards.errors import DataError

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 2
"""Jobs given out beyond one for each worker; more would only hold results in memory."""


def ordered_map(
    function: Callable[[J], R],
    jobs: Iterable[J],
    workers: int,
    died: Callable[[J], R] | None = None,
) -> Iterator[R]:
    """Results of `function` in the order of the jobs.

    Args:
        function: Of a module, so that it can be pickled.
        jobs: Taken as results are.
        workers: Processes; with 1 the work is done in this one.
        died: The result of a job that ends its worker, such as for want of memory, even when no
            other is under way; None raises.

    Raises:
        DataError: If a job ends its worker and `died` is None.
    """
    if workers == 1:
        yield from map(function, jobs)
        return
    rest = iter(jobs)
    while True:
        begun: deque[tuple[J, Future[R]]] = deque()
        try:
            yield from _pooled(function, rest, workers, begun)
            return
        except BrokenProcessPool as error:
            if died is None:
                raise DataError(
                    "a worker process died, perhaps for want of memory; "
                    "the same command with fewer workers continues"
                ) from error
        suspects = [job for job, _ in begun]
        while suspects:
            alone, begun = iter(suspects), deque()
            try:
                yield from _pooled(function, alone, 1, begun)
                break
            except BrokenProcessPool:  # one worker takes its jobs in order: it was the first
                first, *suspects = [*(job for job, _ in begun), *alone]
            yield died(first)


def _pooled(
    function: Callable[[J], R],
    rest: Iterator[J],
    workers: int,
    begun: deque[tuple[J, Future[R]]],
) -> Iterator[R]:
    """Results in order; when a worker dies, `begun` holds the jobs whose results are missing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    started = context.Barrier(workers)
    with ProcessPoolExecutor(workers, context, initializer=_enter, initargs=(started,)) as pool:
        # every worker before the first job: when a job ends its worker while CPython starts
        # another, it would wait for that one for ever
        for worker in [pool.submit(os.getpid) for _ in range(workers)]:
            worker.result()

        def begin(count: int) -> None:
            for job in itertools.islice(rest, count):
                future: Future[R] = Future()
                begun.append((job, future))  # first: a broken pool refuses the job
                begun[-1] = job, pool.submit(function, job)

        try:
            begin(workers + _AHEAD)
            while begun:
                result = begun[0][1].result()
                begin(1)
                begun.popleft()
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _enter(started: Barrier) -> None:
    """Wait for all workers; end, without a word, with the parent or when both are interrupted."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in worker processes only"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    started.wait()
