"""Folds side by side, each in a process of its own and on a device of its own."""

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
from tqdm import tqdm

from gliomoe.data_shards.errors import DataError
from gliomoe.finetune.config import FinetuneConfig

GRACE = 30.0
"""Seconds that a process has to end before it is killed."""


@dataclass(frozen=True)
class _Running:
    """A fold under way."""

    number: int
    row: int
    process: SpawnProcess
    error: Connection
    """Brings the exception that ends the fold, if one does."""


def run_side_by_side(
    run_fold: Callable[..., None], config: FinetuneConfig, prepared: Any, numbers: Sequence[int]
) -> None:
    """Train folds, `config.train.parallel` at a time.

    Args:
        run_fold: Called as `run_fold(config, prepared, number, row)`, in another process.
        config: The run's configuration; with `device = "auto"` the GPUs are dealt out in turn.
        prepared: What `run_fold` takes; it is pickled.
        numbers: The folds.

    Raises:
        Exception: That of the first fold that fails; the others are ended and can be continued.
    """
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()  # of the terminal
    waiting, free = deque(numbers), deque(range(config.train.parallel))
    running: dict[int, _Running] = {}
    processes: list[SpawnProcess] = []
    try:
        while waiting or running:
            while waiting and free:
                number, row = waiting.popleft(), free.popleft()
                receive, send = context.Pipe(duplex=False)
                device = fold_device(config.train.device, row)
                own = replace(config, train=replace(config.train, device=device))
                process = context.Process(
                    target=_train,
                    args=(run_fold, own, prepared, number, row, send, lock, logging.root.level),
                    name=f"fold {number}",
                )
                processes.append(process)
                process.start()
                send.close()
                running[process.sentinel] = _Running(number, row, process, receive)
            for sentinel in wait(list(running)):
                assert isinstance(sentinel, int)
                ended = running.pop(sentinel)
                _check(ended)
                free.append(ended.row)
    finally:
        _end(processes)


def fold_device(name: str, row: int) -> str:
    """The device of a fold: with `auto` and GPUs, one in turn."""
    gpus = torch.cuda.device_count() if name == "auto" else 0
    return f"cuda:{row % gpus}" if gpus else name


def _check(fold: _Running) -> None:
    """Raise what ended a fold that did not end well."""
    fold.process.join()
    if fold.process.exitcode == 0:
        return
    try:
        error = fold.error.recv()
    except EOFError:
        raise DataError(
            f"fold {fold.number}: its process ended with code {fold.process.exitcode}, perhaps for "
            "lack of memory; the same command continues, with a lower --train.parallel if so"
        ) from None
    raise error


def _end(processes: Sequence[SpawnProcess]) -> None:
    """Stop processes that still run as an interruption does."""
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.terminate()
    for process in alive:
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()


def _train(
    run_fold: Callable[..., None],
    config: FinetuneConfig,
    prepared: Any,
    number: int,
    row: int,
    error: Connection,
    lock: Any,
    level: int,
) -> None:
    """What the process of a fold does; it ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent passes it on
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Thread(target=_follow_parent, daemon=True).start()
        logging.basicConfig(level=level, format="%(message)s")
        tqdm.set_lock(lock)
        torch.set_num_threads(max(1, torch.get_num_threads() // config.train.parallel))
        if config.train.device.startswith("cuda"):
            torch.cuda.set_device(config.train.device)
        run_fold(config, prepared, number, row)
    except BaseException as ended:
        ended.add_note(traceback.format_exc())  # for --debug: frames do not travel
        error.send(ended)
        raise SystemExit(1) from None


def _follow_parent() -> None:
    """Stop this process when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
