"""Uncompressed tar archives: deterministic members, walked in place or read as a stream."""

import io
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
        info = _parse(header, start, len(archive), name)
        if "/" in info.name or info.name.startswith("."):
            raise DataError(f"{name}: {info.name!r} at byte {start} is no name; fetch it again")
        first = start + BLOCK
        end = _next_header(info, start)
        yield Member(info.name, start, end, archive[first : first + info.size])
        start = end


def read_members(stream: io.BufferedReader, size: int, name: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members of an archive that is read from its start.

    Args:
        stream: At its start.
        size: Bytes of the whole archive.
        name: The archive, for messages.

    Raises:
        DataError: If a header is damaged, or the archive ends without its closing blocks.
    """
    start = 0
    while (header := stream.read(BLOCK)) != END[:BLOCK]:
        info = _parse(header, start, size, name)
        end = _next_header(info, start)
        content = stream.read(end - start - BLOCK)
        if len(content) < end - start - BLOCK:
            raise DataError(f"{name}: cut off in {info.name}; fetch or build the shard again")
        yield info.name, content[: info.size]
        start = end


def _parse(header: bytes, start: int, size: int, name: str) -> tarfile.TarInfo:
    """What a header at byte `start` of an archive of `size` bytes says."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name}: damaged at byte {start} ({error}); fetch or build the shard again"
        ) from error
    if not info.isreg() or info.size < 0 or _next_header(info, start) > size:
        raise DataError(
            f"{name}: {info.name} at byte {start} is cut off or no plain file; "
            "fetch or build the shard again"
        )
    return info


def _next_header(info: tarfile.TarInfo, start: int) -> int:
    """Where the header after the one at byte `start` begins."""
    return start + BLOCK + -(-info.size // BLOCK) * BLOCK
