"""`fingerprints.npy`: the signatures of a shard set, one row a scan, mapped into memory.

Notable: rows are sorted by sequence, because only scans of one sequence are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.files import atomic_write, map_rows
from gliomoe.data_shards.identity.signature import SIZE
from gliomoe.data_shards.sequences import SEQUENCES

FINGERPRINTS = "fingerprints.npy"

ROW = np.dtype([("sequence", "u1"), ("study", "<u4"), ("code", "u1", (SIZE,))])
"""`sequence` counts in `SEQUENCES`, `study` in the index; `code` is the signature."""


class Fingerprints:
    """The signatures of one shard set."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    @classmethod
    def open(cls, path: Path) -> "Fingerprints":
        """Map a file of signatures.

        Raises:
            DataError: If the file is missing or of another format.
        """
        return cls(map_rows(path, ROW))

    def of_sequence(self, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        """Studies [n] and signatures [n, SIZE] uint8 of one sequence."""
        first, last = np.searchsorted(self._rows["sequence"], [sequence, sequence + 1])
        part = self._rows[first:last]
        return part["study"], part["code"]

    def of_studies(self, studies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sequences [n] and signatures [n, SIZE] uint8 of some studies, given by number."""
        part = self._rows[np.isin(self._rows["study"], studies)]
        return part["sequence"], part["code"]


def fingerprint_rows(record: Mapping[str, Any], study: int) -> Iterator[tuple[Any, ...]]:
    """The rows of one study, from its record."""
    for name, how in record["sequences"].items():
        code = np.frombuffer(bytes.fromhex(how["signature"]), np.uint8)
        yield SEQUENCES.index(name), study, code


def write_fingerprints(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write rows, given in pieces in the order of the studies, atomically."""
    joined = np.concatenate([np.zeros(0, ROW), *rows])
    order = np.argsort(joined["sequence"], kind="stable")
    with atomic_write(path) as file:
        np.save(file, joined[order], allow_pickle=False)
