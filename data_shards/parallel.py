"""Work shared out to processes, results in order, and none of them left behind.

Notable: workers come from a fork server, so that no thread of the caller (torch, OpenMP) is
forked; each watches its parent and ends with it, even when that is killed.
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
from typing import TypeVar

from gliomoe.data_shards.errors import DataError

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 2
"""Jobs given out beyond one for each worker; more would only hold results in memory."""


def ordered_map(function: Callable[[J], R], jobs: Iterable[J], workers: int) -> Iterator[R]:
    """Results of `function` in the order of the jobs.

    Args:
        function: Of a module, so that it can be pickled.
        jobs: Taken as results are.
        workers: Processes; with 1 the work is done in this one.

    Raises:
        DataError: If a worker dies, such as for want of memory.
    """
    if workers == 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    rest = iter(jobs)
    with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for job in itertools.islice(rest, workers + _AHEAD):
                waiting.append(pool.submit(function, job))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, job) for job in itertools.islice(rest, 1))
                yield result
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died, perhaps for want of memory; "
                "the same command with fewer workers continues"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """End this process, without a word, when its parent ends or both are interrupted."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in worker processes only"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
