"""Whether a shard set is what was written, down to each study."""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format.codec import Frame
from gliomoe.data_shards.format.dataset import file_info
from gliomoe.data_shards.format.record import SEG, frame_suffix
from gliomoe.data_shards.identity.fingerprints import FINGERPRINTS
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.sample import StoredStudy
from gliomoe.data_shards.storage.store import FileInfo, Store, open_store


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was written."""

    shard: str
    """File name."""
    key: str | None
    """Study, None where the damage is outside every study."""
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What a check found."""

    studies: int
    shards: int
    damage: tuple[Damage, ...]


def verify(place: Path | str, decode: bool = False) -> VerifyReport:
    """Compare size and sha256 of every file; in a shard that differs, check every study.

    Args:
        place: A folder or a URL.
        decode: Decode every study as well; finds what was damaged before it was hashed.

    Raises:
        UsageError: If the place is no finished shard set.
        DataError: If `dataset.json` or the index cannot be read at all.
    """
    shards, store = ShardSet.open(place), open_store(place)
    info = shards.info
    damage = []
    if "fingerprints" not in info:
        damage.append(Damage(FINGERPRINTS, None, "is not listed; build the set again"))
    for file in (file_info(info[name]) for name in ("index", "fingerprints") if name in info):
        if reason := _difference(store, file):
            damage.append(Damage(file.name, None, f"{reason}; build the set again"))
    first = 0
    for shard in tqdm(info["shards"], "verify", unit="shard", disable=None):
        numbers = range(first, first + shard["studies"])
        first = numbers.stop
        reason = _difference(store, file_info(shard))
        if reason or decode:
            found = [(i, why) for i in numbers if (why := _study_damage(shards, i, decode))]
            damage += [Damage(shard["name"], shards.entry(i).key, why) for i, why in found]
            if reason and not found:
                damage.append(Damage(shard["name"], None, f"{reason}, outside its studies"))
    return VerifyReport(len(shards), len(info["shards"]), tuple(damage))


def _difference(store: Store, file: FileInfo) -> str | None:
    """How a file differs from what was written."""
    try:
        size = store.size(file.name)
        if size != file.bytes:
            return f"has {size} bytes, not {file.bytes}"
        with store.stream(file.name) as stream:
            digest = hashlib.file_digest(stream, "sha256")
    except FileNotFoundError:
        return "is missing"
    return None if digest.hexdigest() == file.sha256 else "differs from its sha256"


def _study_damage(shards: ShardSet, i: int, decode: bool) -> str | None:
    """How a study differs from what was written, or why it cannot be decoded."""
    try:
        content = shards.bytes_of(i)
        if zlib.crc32(content) != shards.place(i)[1].crc32:
            return "its bytes differ from what was written"
        return _frame_damage(shards.study(i)) if decode else None
    except DataError as error:
        return str(error)


def _frame_damage(study: StoredStudy) -> str | None:
    """Which frame does not decode to the voxels that were encoded."""
    wanted = {frame_suffix(name): how["crc32"] for name, how in study.record["sequences"].items()}
    if study.record["has_seg"]:
        wanted[SEG] = study.record["seg_crc32"]
    for suffix, crc32 in wanted.items():
        try:
            frame, shape = Frame(study.members[suffix]), tuple(study.record["shape"])
            if frame.shape != shape:
                return f"{suffix} is of size {frame.shape}, not {shape}"
            voxels = np.empty(shape, frame.dtype)
            frame.read_into(voxels, (0, 0, 0), shape)
        except (KeyError, ValueError, RuntimeError) as error:
            return f"{suffix} cannot be decoded ({error})"
        if zlib.crc32(voxels.data) != crc32:
            return f"{suffix} holds other voxels than were encoded"
    return None
