"""Shards on disk: an uncompressed tar that appears whole or not at all."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.format.record import EncodedStudy


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard, as `dataset.json` lists it."""

    name: str
    bytes: int
    sha256: str
    studies: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def shard_name(number: int) -> str:
    """File name of a shard; sorting the names sorts the numbers."""
    return f"shard-{number:06d}.tar"


def write_shard(path: Path, studies: Iterable[EncodedStudy], limit: int) -> ShardInfo:
    """Write studies until the shard has `limit` bytes or there are no more.

    Args:
        path: Where the shard shall be.
        studies: Taken one after another; what the shard does not need stays in the iterator.
        limit: Bytes after which no further study is begun.
    """
    digest = hashlib.sha256()
    size = count = 0
    with atomic_write(path) as file:
        for study in studies:
            for name, content in study.members:
                piece = tar.member(name, content)
                digest.update(piece)
                size += file.write(piece)
            count += 1
            if size >= limit:
                break
        digest.update(tar.END)
        size += file.write(tar.END)
    return ShardInfo(path.name, size, digest.hexdigest(), count)


def write_shards(
    folder: Path, studies: Iterable[EncodedStudy], limit: int, number: int = 0
) -> Iterator[ShardInfo]:
    """Write studies into one shard after another, each yielded when it is whole.

    Args:
        folder: Where the shards shall be.
        studies: In the order of their keys.
        limit: Bytes after which a shard is closed.
        number: Number of the first shard.
    """
    rest = iter(studies)
    for first in rest:
        yield write_shard(folder / shard_name(number), chain([first], rest), limit)
        number += 1


def from_members(members: Sequence[tar.Member]) -> EncodedStudy:
    """A study as it lies in a shard, to be written again to the same bytes.

    Args:
        members: Its members, the record first.
    """
    key = members[0].name.partition(".")[0]
    return EncodedStudy(key, tuple((member.name, member.content) for member in members))


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
