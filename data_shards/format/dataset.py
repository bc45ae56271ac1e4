"""`dataset.json`: what makes a folder of shards a finished set."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.format.index import INDEX, Index, pack, scan_shard, write_index
from gliomoe.data_shards.format.record import FORMAT
from gliomoe.data_shards.format.writer import ShardInfo, hash_file
from gliomoe.data_shards.identity.fingerprints import (
    FINGERPRINTS,
    ROW,
    Fingerprints,
    fingerprint_rows,
    write_fingerprints,
)
from gliomoe.data_shards.identity.overlap import find_matches, write_duplicates
from gliomoe.data_shards.storage.store import FileInfo, LocalStore, Source

DATASET = "dataset.json"

_FIELDS = ("studies", "labelled", "sequences", "preprocess", "index", "shards")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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


def read_dataset(place: Source | Path) -> dict[str, Any]:
    """`dataset.json` of a finished shard set.

    Raises:
        UsageError: If the place is no finished shard set.
        DataError: If the file is damaged, of another format version, or cannot be read.
    """
    source = LocalStore(place) if isinstance(place, Path) else place
    try:
        text = source.read(DATASET)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{source.name}: not a finished shard set (no {DATASET}); "
            "gliomoe shards build makes one and continues one that was interrupted"
        ) from None
    path = source.place(DATASET)
    try:
        info = json.loads(text)
        version = info["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); build the set again") from error
    if version != FORMAT:
        raise DataError(f"{path}: has format version {version}, this program reads {FORMAT}")
    if missing := [field for field in _FIELDS if field not in info]:
        raise DataError(f"{path}: damaged (no {', '.join(missing)}); build the set again")
    try:
        files = [info["index"], *info["shards"]]
        files += [info["fingerprints"]] if "fingerprints" in info else []
        counts = [shard["studies"] for shard in info["shards"]]
        whole = all(map(_plain, files)) and all(type(n) is int and n > 0 for n in counts)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); build the set again") from error
    if not whole:
        raise DataError(
            f"{path}: lists a file with an impossible name, size, hash or number of studies; "
            "build the set again"
        )
    if sum(counts) != info["studies"]:
        raise DataError(f"{path}: shards and number of studies disagree; build the set again")
    return info


def file_info(listed: Mapping[str, Any]) -> FileInfo:
    """A file that `dataset.json` lists."""
    return FileInfo(listed["name"], listed["bytes"], listed["sha256"])


def join_infos(places: Sequence[str], infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`dataset.json` of one set; of several the settings that they share and the joint counts.

    Raises:
        UsageError: If the sets were preprocessed differently.
        DataError: If they hold no study.
    """
    counts: dict[str, int] = {}
    for place, info in zip(places, infos, strict=True):
        if info["preprocess"] != infos[0]["preprocess"]:
            raise UsageError(
                f"{place}: preprocessed otherwise than {places[0]}; "
                "build both with the same settings"
            )
        for name, count in info["sequences"].items():
            counts[name] = counts.get(name, 0) + count
    joint = {
        **infos[0],
        "studies": sum(info["studies"] for info in infos),
        "labelled": sum(info["labelled"] for info in infos),
        "sequences": counts,
        "shards": [shard for info in infos for shard in info["shards"]],
    }
    if not joint["studies"]:
        raise DataError(f"{places[0]}: holds no study")
    return joint


def fingerprint_of(info: Mapping[str, Any]) -> str:
    """Hash of everything in the shards, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in info["shards"]:
        digest.update(shard["sha256"].encode())
    return digest.hexdigest()


def _plain(file: Mapping[str, Any]) -> bool:
    """Whether a listed file can only be a file of the set."""
    return (
        _NAME.fullmatch(file["name"]) is not None
        and type(file["bytes"]) is int
        and file["bytes"] >= 0
        and _SHA256.fullmatch(file["sha256"]) is not None
    )
