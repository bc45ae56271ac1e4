"""What DeepSpeed writes when it saves: noted file by file; an error lets no other rank wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Write = Callable[[Any, str], None]


@contextmanager
def recorded_writes(engine: Any) -> Iterator[tuple[Write, list[Path]]]:
    """Note the files that this process writes while DeepSpeed saves a checkpoint.

    DeepSpeed waits for all ranks several times on the way, and a rank that left it with an error
    would be waited for: the first error is kept until the end of the block.

    Args:
        engine: DeepSpeed's.

    Yields:
        A function that writes an object to a path, and the list of the paths written.

    Raises:
        OSError: If a file could not be written.
    """
    written: list[Path] = []
    failures: list[Exception] = []

    def write(state_dict: Any, path: str) -> None:
        if failures:
            return
        try:
            torch.save(state_dict, path)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into the latter
            failures.append(error)
        written.append(Path(path))

    engine.checkpoint_engine.save = write
    # Scripts to read the checkpoint elsewhere, which would be part of no manifest.
    engine._copy_recovery_script = lambda folder: None
    try:
        yield write, written
    finally:
        del engine.checkpoint_engine.save, engine._copy_recovery_script
    if failures:
        raise OSError(f"{written[-1]}: {failures[0]}") from failures[0]
