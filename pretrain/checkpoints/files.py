"""Files of a checkpoint: on the disk for good, described by size and CRC-32, with room for them."""

import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from gliomoe.data_shards.errors import DataError

_BLOCK = 1 << 24
_SPARE = 1.05
"""Part by which a checkpoint may be larger than the one before it."""


def settle(path: Path) -> dict[str, int]:
    """Make sure that a file or folder outlives a power failure.

    Returns:
        Size and CRC-32 of a file, nothing of a folder.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return {} if path.is_dir() else _describe(path)


def damage(folder: Path, files: Mapping[str, Mapping[str, int]]) -> str | None:
    """What is wrong with the files of a folder, None if they are as described."""
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{name} has {path.stat().st_size} bytes of {wanted['bytes']}"
    for name, wanted in files.items():
        if _describe(folder / name) != wanted:
            return f"{name} has other content than was written"
    return None


def check_room(folder: Path, need: int) -> None:
    """Refuse to write what does not fit.

    Args:
        folder: Where it shall be, or any folder below which that will be made.
        need: Bytes.

    Raises:
        DataError: If less is free.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if free < need:
        raise DataError(
            f"{folder}: a checkpoint needs {_readable(need)}, {_readable(free)} are free; "
            "free space, the same command continues"
        )


def expected_bytes(module: nn.Module, manifest: Mapping[str, Any] | None) -> int:
    """Size of the next checkpoint: that of the one before, or what the weights let expect.

    Weights are written twice, for export and for the engine; AdamW keeps two moments in float32,
    and under ZeRO a copy of the weights as well.
    """
    if manifest is not None:
        return int(_SPARE * sum(file["bytes"] for file in manifest["files"].values()))
    weights = sum(value.nbytes for value in module.state_dict().values())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return int(_SPARE * (2 * weights + 3 * 4 * trained))


def _describe(path: Path) -> dict[str, int]:
    """Size and CRC-32."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return {"bytes": size, "crc32": crc}


def _readable(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
