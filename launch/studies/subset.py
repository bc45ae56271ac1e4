"""Some studies of a shard set as a set of their own."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.dataset import COUNTED, DATASET, seal
from gliomoe.data_shards.format.record import EncodedStudy
from gliomoe.data_shards.format.writer import from_members, write_shards
from gliomoe.data_shards.reading.indexed import ShardSet

_SHARD_BYTES = 500_000_000


def write_subset(shards: ShardSet, studies: int, seed: int, out: Path) -> None:
    """Copy a random subset of studies as they are stored; a finished one in `out` is left alone.

    Args:
        shards: The set, or several.
        studies: How many, at least 1 and no more than there are; fewer are among more.
        seed: Of the choice.
        out: Folder of the new set.
    """
    if (out / DATASET).is_file():
        return
    chosen = np.random.default_rng(seed).permutation(len(shards))[:studies].tolist()
    chosen.sort(key=lambda i: shards.entry(i).key)
    settings = {name: value for name, value in shards.info.items() if name not in COUNTED}
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        copies = (_study(shards, i) for i in chosen)
        seal(made, list(write_shards(made, copies, _SHARD_BYTES)), **settings)
        os.replace(made, out)
    except BaseException:
        shutil.rmtree(made)
        raise


def _study(shards: ShardSet, i: int) -> EncodedStudy:
    """A study as it is stored."""
    piece = shards.bytes_of(i)
    return from_members(list(tar.walk(piece, 0, len(piece), shards.entry(i).key)))
