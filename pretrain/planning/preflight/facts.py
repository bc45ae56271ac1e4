"""What one process sees of its machine, of the run's folder and of the data."""

import hashlib
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from gliomoe import data_shards, models, pretrain
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format.dataset import file_info, read_dataset
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.data_shards.storage.store import open_source
from gliomoe.pretrain.config import PretrainConfig

_PACKAGES = ("gliomoe", "torch", "deepspeed", "numpy")
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Facts:
    """What a process found; plain values, so that they travel as JSON."""

    rank: int
    host: str
    device: str
    """Name of its GPU, or `cpu`."""
    memory_bytes: int
    """Of the GPU; on CPU this process's share of the machine's."""
    versions: dict[str, str]
    code: str
    """Hash of the modules that train."""
    clock_off: float
    """Seconds that its clock is ahead of rank 0's, by the time that rank 0 wrote down."""
    shared_memory: int
    """Free bytes of /dev/shm."""
    open_files: int
    """Files that it may hold open (`ulimit -n`)."""
    folder: str
    """Why the run's folder cannot be used by this process, empty if it can."""
    free_bytes: int
    """Of the disk that holds the run's folder."""
    data: str
    """Fingerprint of the shard sets as this process reads them."""
    damage: tuple[str, ...]
    """Files of the shard sets that have not their size; each process looks at a part of them."""
    checked: int
    """Files that it looked at."""
    network_s: float | None = None
    """Seconds of an all-reduce; None with one process."""
    network: str = ""
    """Why there was none."""


def versions() -> dict[str, str]:
    """Versions of Python and of what the arithmetic depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def code_fingerprint() -> str:
    """Hash of the modules that train, whether or not they lie in a git checkout."""
    digest = hashlib.sha256()
    for part in (data_shards, models, pretrain):
        root = Path(str(part.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def hardware(device: torch.device) -> tuple[str, int]:
    """Name and memory of this process's device."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.name, properties.total_memory
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "cpu", machine // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def limits() -> tuple[int, int]:
    """Free bytes of /dev/shm, and how many files may be open."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 0
    return free, resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def try_folder(folder: Path, rank: int, token: str, wait: float) -> str:
    """Whether this process sees rank 0's token in the run's folder and can write there.

    Args:
        folder: The run's.
        rank: Of this process.
        token: Name of the file that rank 0 wrote.
        wait: Seconds after which it should be seen; network file systems show it late.

    Returns:
        What is wrong, empty if nothing is.
    """
    there, mine = folder / token, folder / f"{token}-{rank}"
    try:
        end = time.monotonic() + wait
        while not there.is_file():
            if time.monotonic() > end:
                return f"{folder} on {socket.gethostname()} is not the folder that rank 0 writes to"
            time.sleep(0.05)
        mine.write_text(token, "utf-8")
        mine.unlink()
    except OSError as error:
        return f"{folder} on {socket.gethostname()}: {error.strerror}"
    return ""


def check_sizes(config: PretrainConfig, rank: int, world: int) -> tuple[tuple[str, ...], int]:
    """Files of this rank's part of the shard sets that have another size, and how many it has.

    A set that cannot be opened counts as one such file.
    """
    damage, checked = [], 0
    for place in config.data.train:
        source = open_source(place, config.data.storage, config.data.allow_pipes)
        size_of = getattr(source, "size", None)
        if size_of is None:  # a pipe tells no sizes
            continue
        try:
            info = read_dataset(source)
        except (DataError, UsageError) as error:
            damage.append(str(error))
            continue
        for file in [file_info(shard) for shard in (info["index"], *info["shards"])][rank::world]:
            checked += 1
            try:
                size = size_of(file.name)
            except FileNotFoundError:
                damage.append(f"{source.place(file.name)} is missing")
                continue
            except DataError as error:
                damage.append(str(error))
                continue
            if size != file.bytes:
                damage.append(f"{source.place(file.name)} has {size} bytes, not {file.bytes}")
    return tuple(damage), checked


def shared_memory_needed(config: PretrainConfig, micro: int, prefetch: int) -> int:
    """Bytes that readers may put into /dev/shm at most, int16 boxes of all sequences."""
    box = config.views.box**3 * 2 * len(SEQUENCES)
    return config.data.workers * prefetch * micro * box


def different(values: Sequence[object]) -> list[int]:
    """Positions whose value is not that of the first."""
    return [number for number, value in enumerate(values) if value != values[0]]
