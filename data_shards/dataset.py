"""`dataset.json`: what makes a folder of shards a finished set."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.index import INDEX, Index, Row, scan_shard, write_index
from gliomoe.data_shards.record import FORMAT
from gliomoe.data_shards.writer import ShardInfo, hash_file

DATASET = "dataset.json"

COUNTED = ("format", "studies", "labelled", "sequences", "index", "shards")
"""Entries that follow from the shards."""


def seal(
    folder: Path, shards: Sequence[ShardInfo], preprocess: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Write index and `dataset.json` next to whole shards, and so finish the set.

    Args:
        folder: Where the shards lie, which hold their studies in the order of the keys.
        shards: All of them, in order.
        preprocess: Preprocessing settings, plain values.
        more: Further entries of `dataset.json`.

    Returns:
        The content of `dataset.json`.
    """
    rows: list[Row] = []
    for number, shard in enumerate(shards):
        rows += scan_shard(folder / shard.name, number)
    path = folder / INDEX
    write_index(path, rows)
    index = Index.open(path)
    info = {
        "format": FORMAT,
        "studies": len(index),
        "labelled": index.labelled(),
        "sequences": index.counts(),
        "preprocess": dict(preprocess),
        **more,
        "index": {"name": INDEX, "bytes": path.stat().st_size, "sha256": hash_file(path)},
        "shards": [shard.to_json() for shard in shards],
    }
    write_json(folder / DATASET, info)
    return info


def read_dataset(folder: Path) -> dict[str, Any]:
    """`dataset.json` of a finished shard set.

    Raises:
        UsageError: If the folder is no finished shard set.
        DataError: If the file is damaged or of another format version.
    """
    path = folder / DATASET
    if not path.is_file():
        raise UsageError(
            f"{folder}: not a finished shard set (no {DATASET}); "
            "gliomoe shards build makes one and continues one that was interrupted"
        )
    try:
        info = json.loads(path.read_text("utf-8"))
        version = info["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); build the set again") from error
    if version != FORMAT:
        raise DataError(f"{path}: has format version {version}, this program reads {FORMAT}")
    return info
