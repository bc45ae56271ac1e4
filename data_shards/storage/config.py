"""How remote shards are read, and what is kept of them on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "GLIOMOE_CACHE"

_MIB = 1 << 20


@dataclass(frozen=True)
class StorageConfig:
    """How shards in object stores and on web servers are read; local ones need none of it."""

    cache: Path | None = None
    """Folder for what is kept of remote sets; by default `shards` in the folder that
    `GLIOMOE_CACHE` names, or in `~/.cache/gliomoe`. Several processes may share it."""
    cache_gb: float = 0.0
    """GB of shards kept there, the least recently used go first; 0 keeps only indexes."""
    memory_mb: float = 128.0
    """MB of shards kept in the memory of each reading process."""
    block_mb: float = 1.0
    """MiB of a shard that are fetched and kept as one; neighbours are fetched together."""
    retries: int = 6
    """Further attempts after a fault of the network or the server."""
    pause: float = 0.2
    """Seconds before the first further attempt; doubled for each next one, up to 10."""
    timeout: float = 60.0
    """Seconds after which an attempt, or a stream that stands still, counts as failed."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.block_bytes < 1 or self.timeout <= 0:
            raise ValueError("block_mb and timeout must be above 0")
        if min(self.cache_gb, self.memory_mb, self.retries, self.pause) < 0:
            raise ValueError("cache_gb, memory_mb, retries and pause must not be negative")

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return int(self.block_mb * _MIB)

    @property
    def folder(self) -> Path:
        """The cache folder."""
        home = Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/gliomoe").expanduser()
        return (self.cache or home / "shards").absolute()
