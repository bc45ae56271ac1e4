"""What an earlier build left in a folder, and how much of it a later one keeps.

Notable: shards are cut by size, so a study that is added moves all that follow it. The shards
from there on are set aside (`.replaced-*.tar`), and their studies are copied instead of prepared
again.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.building.plan import Plan, other_set
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.dataset import DATASET, read_dataset
from gliomoe.data_shards.format.index import studies_in
from gliomoe.data_shards.format.record import EncodedStudy, parse_record
from gliomoe.data_shards.format.writer import ShardInfo, from_members, hash_file, shard_name

_REPLACED = ".replaced-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WholeShard:
    """A shard that was finished."""

    info: ShardInfo
    origins: dict[str, str]
    """Key → hash of the study's files, in the order of the keys."""

    @property
    def last(self) -> str:
        """The last key."""
        return next(reversed(self.origins))

    def is_full(self, limit: int) -> bool:
        """Whether it was closed for its size, not for want of studies."""
        return self.info.bytes - len(tar.END) >= limit


def whole_shards(out: Path) -> list[WholeShard]:
    """The shards of a folder up to the first that is missing; their sizes and hashes as read.

    Raises:
        DataError: If a shard is damaged.
    """
    listed = read_dataset(out)["shards"] if (out / DATASET).is_file() else None
    shards: list[WholeShard] = []
    while (path := out / shard_name(len(shards))).is_file():
        origins = {}
        archive = tar.open_archive(path)
        for members in studies_in(archive, str(path)):
            record = parse_record(members[0].content, f"{path}, {members[0].name}")
            origins[record["key"]] = record.get("origin", "")
        if listed is None:
            info = ShardInfo(path.name, path.stat().st_size, hash_file(path), len(origins))
        else:
            info = ShardInfo(**listed[len(shards)])
        shards.append(WholeShard(info, origins))
    return shards


def check_origins(out: Path, shards: Sequence[WholeShard], plan: Plan) -> None:
    """Refuse to go on when the files of a study that is built have changed.

    Raises:
        UsageError: If they have.
    """
    for shard in shards:
        if any(plan.origins.get(key) != origin for key, origin in shard.origins.items()):
            raise other_set(out, ["inputs"])


def make_room(
    out: Path, shards: Sequence[WholeShard], key: str, limit: int
) -> Sequence[WholeShard]:
    """Set aside the shards that a study to be added changes.

    Args:
        out: The folder; if its set was finished, it is no longer.
        shards: Its whole shards.
        key: Key of the study.
        limit: Bytes after which a shard is closed.

    Returns:
        The shards that stay.
    """
    stay = [shard for shard in shards if shard.last < key]
    if stay and not stay[-1].is_full(limit):
        stay.pop()
    (out / DATASET).unlink(missing_ok=True)
    for number in reversed(range(len(stay), len(shards))):  # those that stay are never behind a gap
        path, info = out / shard_name(number), shards[number].info
        if hash_file(path) == info.sha256:
            path.rename(out / f"{_REPLACED}{number:06d}.tar")
        else:
            path.unlink()
    return stay


class Replaced:
    """The studies of shards that were set aside."""

    def __init__(self, out: Path) -> None:
        self._found: dict[str, tuple[str, EncodedStudy]] = {}
        for path in sorted(out.glob(f"{_REPLACED}*")):
            try:
                self._list(path)
            except DataError as error:
                _log.warning("%s; its studies are prepared again", error)

    def find(self, key: str, origin: str) -> EncodedStudy | None:
        """A study as it was, None if it is not here or its files have changed."""
        found = self._found.get(key)
        return found[1] if found is not None and found[0] == origin else None

    def _list(self, path: Path) -> None:
        """Note the studies of a shard; what they hold stays in the mapped file."""
        for members in studies_in(tar.open_archive(path), str(path)):
            study = from_members(members)
            record = parse_record(members[0].content, f"{path}, {study.key}")
            self._found[study.key] = record.get("origin", ""), study


def remove_replaced(out: Path) -> None:
    """Delete the shards that were set aside."""
    for path in out.glob(f"{_REPLACED}*"):
        path.unlink()
