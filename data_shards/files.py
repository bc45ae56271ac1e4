"""Files that are there whole or not at all."""

import csv
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from gliomoe.data_shards.errors import DataError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""


@contextmanager
def atomic_write(path: Path, mode: str = "wb", durable: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` that takes its place when the block ends well.

    Args:
        path: Where the file shall be; its folder is made.
        mode: `wb` or `w` (UTF-8).
        durable: Whether it must outlive a power failure, which takes time.

    Raises:
        DataError: If the disk is full; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and error.errno in FULL:
            raise DataError(f"{path}: {disk_full(error)}") from error
        raise


def disk_full(error: OSError) -> str:
    """What to tell a person whose disk, or share of it, is full."""
    return f"{(error.strerror or 'disk full').lower()}; free space and repeat the command"


def write_json(path: Path, content: Any) -> None:
    """Write JSON, two blanks a level, keys in the given order, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")


def write_list(path: Path, columns: Sequence[str], rows: Sequence[Iterable[Any]]) -> None:
    """Write rows as CSV, atomically; no file if there are none."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def map_rows(path: Path, kind: np.dtype) -> np.ndarray:
    """The rows of a `.npy` file, mapped into memory.

    Raises:
        DataError: If the file is missing or damaged, or its rows are of another kind.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); build the set again") from error
    if rows.dtype != kind or rows.ndim != 1:
        raise DataError(f"{path}: not of this format version; build the set again")
    return np.asarray(rows)
