"""The same scans under two names: in two shard sets, or twice in one.

Notable: two studies are the same by content if their files' voxels are equal (`fingerprint.py`),
and by looks if the signatures of one sequence agree (`signature.py`). All pairs are compared, as
products of matrices in blocks: memory is that of the blocks, time grows with the square.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from gliomoe.data_shards.files import write_list
from gliomoe.data_shards.format.index import Index
from gliomoe.data_shards.identity.fingerprints import Fingerprints
from gliomoe.data_shards.identity.signature import unpack
from gliomoe.data_shards.sequences import SEQUENCES

DUPLICATES = "duplicates.csv"

THRESHOLD = 0.885
"""Likeness from which on two scans are the same: between the least like copies of a scan and two
sessions of one person, by `tests/benchmarks/results/overlap.json`."""

_BLOCK = 4096

_COLUMNS = ["key", "other", "sequence", "score", "exact"]


Scans = tuple[Index, Fingerprints]


@dataclass(frozen=True)
class Match:
    """Two studies that show the same scan."""

    key: str
    other: str
    sequence: str
    """The sequence that agrees best; empty if only the content of all files together does."""
    score: float
    """Cosine of its signatures."""
    exact: bool
    """Whether all voxels of the two studies' files are equal."""


def find_matches(mine: Scans, theirs: Scans | None = None) -> list[Match]:
    """Studies that show the same scan, in the order of their keys.

    Args:
        mine: Index and signatures of one set.
        theirs: Those of another; None looks for duplicates inside the first.
    """
    within = theirs is None
    (index, prints), (others, other_prints) = mine, theirs or mine
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for sequence in range(len(SEQUENCES)):
        pair = prints.of_sequence(sequence), other_prints.of_sequence(sequence)
        for i, j, score in _similar(*pair, within):
            best[i, j] = max(best.get((i, j), (0.0, 0)), (score, sequence))
    same = set(_equal(index.fingerprints, others.fingerprints, within))
    return [
        Match(
            key=index.entry(i).key,
            other=others.entry(j).key,
            sequence=SEQUENCES[best[i, j][1]] if (i, j) in best else "",
            score=round(best[i, j][0], 4) if (i, j) in best else 1.0,
            exact=(i, j) in same,
        )
        for i, j in sorted({*best, *same})
    ]


def scores(mine: np.ndarray, yours: np.ndarray) -> np.ndarray:
    """[n, m] cosines between signatures [n, SIZE] and [m, SIZE]; 0 where one shows no detail."""
    a, b = unpack(mine), unpack(yours)
    lengths = np.sqrt(np.outer((a * a).sum(1), (b * b).sum(1)))
    # Products of whole numbers below 2**24 are exact in float32, in any order of summation.
    return np.divide(a @ b.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def write_duplicates(folder: Path, matches: Sequence[Match]) -> None:
    """List duplicates of a set atomically; no file if there are none."""
    write_list(folder / DUPLICATES, _COLUMNS, [astuple(match) for match in matches])


def _similar(
    mine: tuple[np.ndarray, np.ndarray], yours: tuple[np.ndarray, np.ndarray], within: bool
) -> Iterator[tuple[int, int, float]]:
    """Pairs of studies whose signatures of one sequence agree, with the cosine."""
    for first in range(0, len(mine[0]), _BLOCK):
        for second in range(first if within else 0, len(yours[0]), _BLOCK):
            found = scores(mine[1][first : first + _BLOCK], yours[1][second : second + _BLOCK])
            for a, b in np.argwhere(found >= THRESHOLD).tolist():
                i, j = int(mine[0][first + a]), int(yours[0][second + b])
                if not within or i < j:
                    yield i, j, float(found[a, b])


def _equal(mine: np.ndarray, yours: np.ndarray, within: bool) -> Iterator[tuple[int, int]]:
    """Pairs of studies with equal hashes of their content; a study without one equals none."""
    places: dict[bytes, list[int]] = {}
    for i, content in enumerate(mine):
        places.setdefault(content.tobytes(), []).append(i)
    for j, content in enumerate(yours):
        for i in places.get(content.tobytes(), []):
            if content.any() and (not within or i < j):
                yield i, j
