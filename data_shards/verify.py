"""Whether a shard set is what was written, down to each study."""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gliomoe.data_shards.dataset import file_info
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.index import INDEX
from gliomoe.data_shards.indexed import ShardSet
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


def verify(place: Path | str) -> VerifyReport:
    """Compare size and sha256 of every file; in a shard that differs, check every study.

    Args:
        place: A folder or a URL.

    Raises:
        UsageError: If the place is no finished shard set.
        DataError: If `dataset.json` or the index cannot be read at all.
    """
    shards, store = ShardSet.open(place), open_store(place)
    info = shards.info
    damage = []
    if reason := _difference(store, file_info(info["index"])):
        damage.append(Damage(INDEX, None, f"{reason}; build the set again"))
    first = 0
    for shard in tqdm(info["shards"], "verify", unit="shard", disable=None):
        numbers = range(first, first + shard["studies"])
        first = numbers.stop
        if reason := _difference(store, file_info(shard)):
            found = [(i, why) for i in numbers if (why := _study_damage(shards, i))]
            damage += [Damage(shard["name"], shards.entry(i).key, why) for i, why in found]
            if not found:
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


def _study_damage(shards: ShardSet, i: int) -> str | None:
    """How a study differs from what was written."""
    try:
        content = shards.bytes_of(i)
    except DataError as error:
        return str(error)
    if zlib.crc32(content) != shards.place(i)[1].crc32:
        return "its bytes differ from what was written"
    return None
