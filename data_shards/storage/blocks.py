"""Blocks of remote shards that were read before: some in memory, more in a folder.

Notable: a block is named by the sha256 of its shard, so a folder may serve any number of sets and
processes, and a shard that was built again never meets blocks of the old one. Files appear whole
and end in a checksum; a file that fails it, or that another process has removed, is a block that
is not there.
"""

import logging
import os
import time
import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.data_shards.storage.store import FileInfo

logger = logging.getLogger(__name__)

_CHECK_BYTES = 4
_STALE_SECONDS = 3600
"""Age after which an unfinished file is of a process that was killed."""

Block = tuple[str, int, int]
"""sha256 of the shard, bytes of a whole block, number of this one."""


class BlockCache:
    """Blocks in memory and, if the configuration gives it room, on disk."""

    def __init__(self, config: StorageConfig) -> None:
        self._memory = _Memory(int(config.memory_mb * 1e6))
        self._block = config.block_bytes
        limit = int(config.cache_gb * 1e9)
        self._disk = _Folder(config.folder / "blocks", limit) if limit else None

    def get(self, file: FileInfo, number: int) -> bytes | None:
        """A block, None if it is not kept."""
        block = (file.sha256, self._block, number)
        content = self._memory.get(block)
        if content is None and self._disk:
            size = min(self._block, file.bytes - number * self._block)
            content = self._disk.get(block, size)
            if content is not None:
                self._memory.put(block, content)
        return content

    def put(self, file: FileInfo, number: int, content: bytes) -> None:
        """Keep a block."""
        block = (file.sha256, self._block, number)
        self._memory.put(block, content)
        if self._disk:
            self._disk.put(block, content)


class _Memory:
    """The blocks used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._blocks: OrderedDict[Block, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, block: Block) -> bytes | None:
        """A block that is kept."""
        with self._lock:
            content = self._blocks.get(block)
            if content is not None:
                self._blocks.move_to_end(block)
            return content

    def put(self, block: Block, content: bytes) -> None:
        """Keep a block instead of those unused for longest."""
        with self._lock:
            if block in self._blocks:
                return
            self._blocks[block] = content
            self._used += len(content)
            while self._used > self._limit:
                self._used -= len(self._blocks.popitem(last=False)[1])


class _Folder:
    """One file a block; the time of a file is when it was last used, by any process."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        # As if much had been written already, so that the first block looks what is there.
        self._written = limit

    def get(self, block: Block, size: int) -> bytes | None:
        """A block that is kept, whole and unchanged."""
        path = self._path(block)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        body, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
        if len(body) != size or zlib.crc32(body).to_bytes(_CHECK_BYTES, "big") != check:
            logger.warning("%s: damaged, fetched again", path)
            path.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):  # removed by another process, after it was read
            os.utime(path)
        return body

    def put(self, block: Block, content: bytes) -> None:
        """Keep a block; a folder that cannot be written is not written again."""
        if self._limit == 0:
            return
        path = self._path(block)
        try:
            with atomic_write(path, durable=False) as file:
                file.write(content)
                file.write(zlib.crc32(content).to_bytes(_CHECK_BYTES, "big"))
            self._written += len(content) + _CHECK_BYTES
            # Each of several processes looks after its own share has grown by so much.
            if self._written > self._limit / 256:
                self._make_room()
                self._written = 0
        except (OSError, DataError) as error:
            self._limit = 0
            logger.warning("%s: cannot be written (%s); reading goes on without it", path, error)

    def _make_room(self) -> None:
        """Remove what was unused for longest until the folder is below its limit."""
        files = []
        for path in self._folder.glob("*/*"):
            try:
                about = path.stat()
            except FileNotFoundError:  # removed by another process
                continue
            if path.suffix == ".tmp":
                if time.time() - about.st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
            else:
                files.append((about.st_mtime_ns, about.st_size, path))
        used = sum(size for _, size, _ in files)
        if used <= self._limit:
            return
        for _, size, path in sorted(files):
            path.unlink(missing_ok=True)
            used -= size
            if used <= self._limit * 7 / 8:
                return

    def _path(self, block: Block) -> Path:
        """Where a block is kept."""
        sha256, size, number = block
        return self._folder / sha256[:32] / f"{size}-{number}"
