"""`dataset.json`: what makes a folder of shards a finished set."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.fingerprints import (
    FINGERPRINTS,
    ROW,
    Fingerprints,
    fingerprint_rows,
    write_fingerprints,
)
from gliomoe.data_shards.index import INDEX, Index, pack, scan_shard, write_index
from gliomoe.data_shards.overlap import find_matches, write_duplicates
from gliomoe.data_shards.record import FORMAT
from gliomoe.data_shards.writer import ShardInfo, hash_file

DATASET = "dataset.json"

COUNTED = (
    "format",
    "studies",
    "labelled",
    "sequences",
    "duplicates",
    "index",
    "fingerprints",
    "shards",
)
"""Entries that follow from the shards."""


def seal(
    folder: Path, shards: Sequence[ShardInfo], preprocess: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Write index, signatures and `dataset.json` next to whole shards, and so finish the set.

    Scans that are there twice stay in the set and are listed in `duplicates.csv`.

    Args:
        folder: Where the shards lie, which hold their studies in the order of the keys.
        shards: All of them, in order.
        preprocess: Preprocessing settings, plain values.
        more: Further entries of `dataset.json`.

    Returns:
        The content of `dataset.json`.
    """
    rows, signatures, count = [pack([])], [], 0
    for number, shard in enumerate(shards):
        found = list(scan_shard(folder / shard.name, number))
        rows.append(pack([row for row, _ in found]))
        scans = [
            scan
            for i, (_, record) in enumerate(found, count)
            for scan in fingerprint_rows(record, i)
        ]
        signatures.append(np.array(scans, dtype=ROW))
        count += len(found)
    write_index(folder / INDEX, np.concatenate(rows))
    write_fingerprints(folder / FINGERPRINTS, signatures)
    index = Index.open(folder / INDEX)
    matches = find_matches((index, Fingerprints.open(folder / FINGERPRINTS)))
    write_duplicates(folder, matches)
    info = {
        "format": FORMAT,
        "studies": len(index),
        "labelled": index.labelled(),
        "sequences": index.counts(),
        "preprocess": dict(preprocess),
        **more,
        "duplicates": len(matches),
        "index": _described(folder / INDEX),
        "fingerprints": _described(folder / FINGERPRINTS),
        "shards": [shard.to_json() for shard in shards],
    }
    write_json(folder / DATASET, info)
    return info


def _described(path: Path) -> dict[str, Any]:
    """Name, size and hash of a file."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path)}


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
