"""`open_store`: a folder or a URL as a place that files are read from.

Notable: a local file is mapped into memory and stays a closed file; nothing of it is copied.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format import tar
from gliomoe.data_shards.storage.config import StorageConfig

_SCHEMES = ("s3", "gs", "az", "http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PIPE = "pipe:"


@dataclass(frozen=True)
class FileInfo:
    """A file as `dataset.json` lists it."""

    name: str
    bytes: int
    sha256: str


class Source(Protocol):
    """Files that are read from first to last."""

    name: str
    """Folder or URL, for messages."""

    def place(self, file: str) -> str:
        """Path or URL of a file, for messages."""

    def read(self, file: str) -> bytes:
        """All of a small file.

        Raises:
            FileNotFoundError: If there is none.
            DataError: If it cannot be read.
        """

    def stream(self, file: str) -> io.BufferedReader:
        """A file from its start; the caller closes it.

        Raises:
            FileNotFoundError, DataError: As `read`, here or while reading.
        """


class Store(Source, Protocol):
    """Files that are read in any part."""

    def size(self, file: str) -> int:
        """Bytes of a file; errors as of `read`."""

    def local(self, file: FileInfo) -> Path:
        """Path of a file on this machine, fetched if need be and checked by its sha256.

        Raises:
            DataError: If it cannot be fetched, or a fetched file is another one.
        """

    def range(self, file: FileInfo, offset: int, length: int, what: str) -> memoryview:
        """A part of a file.

        Args:
            file: Of the size that it must have.
            offset: First byte.
            length: Number of bytes.
            what: What lies there, for messages.

        Raises:
            DataError: If it cannot be read, or the file is not what it was.
        """


class LocalStore:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        self._archives: dict[str, memoryview] = {}

    def place(self, file: str) -> str:
        """Path of a file."""
        return str(self._folder / file)

    def read(self, file: str) -> bytes:
        """All of a file."""
        return (self._folder / file).read_bytes()

    def stream(self, file: str) -> io.BufferedReader:
        """The file, opened."""
        return (self._folder / file).open("rb")

    def size(self, file: str) -> int:
        """Bytes of a file."""
        return (self._folder / file).stat().st_size

    def local(self, file: FileInfo) -> Path:
        """The file itself; `gliomoe shards verify` is what hashes local files."""
        return self._folder / file.name

    def range(self, file: FileInfo, offset: int, length: int, what: str) -> memoryview:
        """A part of a file, in place."""
        if file.name not in self._archives:
            self._archives[file.name] = tar.open_archive(self._folder / file.name)
        archive = self._archives[file.name]
        if offset + length > len(archive):
            raise DataError(f"{self.place(file.name)}: ends before {what}; fetch it again")
        return archive[offset : offset + length]


def open_store(place: Path | str, config: StorageConfig | None = None) -> Store:
    """The store of a shard set.

    Args:
        place: A folder, or a URL that begins with s3, gs, az, http or https.
        config: For URLs.

    Raises:
        UsageError: If nothing reads such a URL in parts.
    """
    text = str(place)
    if text.startswith(_PIPE):
        raise UsageError(f"{text}: a pipe is read from first to last; use the streaming reader")
    found = _URL.match(text)
    if found is None:
        return LocalStore(Path(place))
    if found[1] not in _SCHEMES:
        raise UsageError(f"{text}: give a folder or a URL with {', '.join(_SCHEMES)}")
    if re.search(r"[?#]|//[^/]*@", text):
        raise UsageError(
            f"{found[0]}…: a URL with a password, a query or a fragment is not taken; "
            "credentials belong into the environment"
        )
    from gliomoe.data_shards.storage.remote import RemoteStore

    return RemoteStore(text, config or StorageConfig())


def open_source(
    place: Path | str, config: StorageConfig | None = None, allow_pipes: bool = False
) -> Source:
    """The source of a shard set that is read from first to last.

    Args:
        place: As in `open_store`, or `pipe:COMMAND` in which `{}` stands for the file's name.
        config: For URLs.
        allow_pipes: Whether commands may be run.

    Raises:
        UsageError: If nothing reads such a place, or it is a command and these are not allowed.
    """
    text = str(place)
    if not text.startswith(_PIPE):
        return open_store(place, config)
    if not allow_pipes:
        raise UsageError(f"{text}: would run a command; --allow-pipes permits it")
    from gliomoe.data_shards.storage.pipe import PipeSource

    return PipeSource(text)


def absolute_place(place: Path | str) -> str:
    """A folder as an absolute path; a URL or a pipe as it is."""
    text = str(place)
    return text if _URL.match(text) or text.startswith(_PIPE) else str(Path(place).resolve())
