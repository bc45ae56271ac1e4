"""Uncompressed tar archives as byte ranges: deterministic members, walked in place."""

import mmap
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.errors import DataError

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
"""What closes an archive."""


@dataclass(frozen=True)
class Member:
    """A file inside an archive that is mapped into memory."""

    name: str
    offset: int
    """Where its header starts."""
    end: int
    """Where the next header starts."""
    content: memoryview


def member(name: str, content: bytes | memoryview) -> bytes:
    """Header, content and padding of one file; the same arguments give the same bytes."""
    info = tarfile.TarInfo(name)  # mtime 0, uid 0, gid 0, mode 0644, no names
    info.size = len(content)
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return b"".join((header, content, bytes(-len(content) % BLOCK)))


def open_archive(path: Path) -> memoryview:
    """An archive mapped into memory, read-only; the file itself is closed again.

    Raises:
        DataError: If the file is missing or empty.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch or build it again") from error


def walk(archive: memoryview, start: int, stop: int, name: str) -> Iterator[Member]:
    """The members between two offsets, without copying.

    Args:
        archive: The whole archive.
        start: Where a header starts.
        stop: Where the last member to visit ends, or the archive's length.
        name: The archive, for messages.

    Raises:
        DataError: If a header is damaged or the archive ends early.
    """
    while start < stop:
        header = bytes(archive[start : start + BLOCK])
        if header == END[:BLOCK]:
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise DataError(
                f"{name}: damaged at byte {start} ({error}); fetch or build the shard again"
            ) from error
        first = start + BLOCK
        end = first + -(-info.size // BLOCK) * BLOCK
        if not info.isreg() or info.size < 0 or end > len(archive):
            raise DataError(
                f"{name}: {info.name} at byte {start} is cut off or no plain file; "
                "fetch or build the shard again"
            )
        yield Member(info.name, start, end, archive[first : first + info.size])
        start = end
