"""Files in object stores (S3, GS, Azure) and on web servers, through `obstore`.

Notable: all attempts are counted here, not by `obstore`, so that a body that is cut, too short or
stands still is tried again like a request that fails. `obstore` works in threads that do not live
on in a forked process and hang there, so that such a use is refused; a pickled store opens anew.
"""

import fcntl
import io
import itertools
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.format.writer import hash_file
from gliomoe.data_shards.storage.blocks import BlockCache
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.data_shards.storage.feed import Feed, Incomplete
from gliomoe.data_shards.storage.store import FileInfo

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 10.0
_CLOUD_IDENTITY = "169.254.169.254"
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")

_T = TypeVar("_T")

_random = random.SystemRandom()
"""Of its own: what a run draws must not depend on faults of the network."""

_first_user: list[int] = []
"""The process in which `obstore` has its threads."""


class RemoteStore:
    """A folder behind a URL; credentials and endpoints come from the usual variables."""

    def __init__(self, url: str, config: StorageConfig) -> None:
        self.name = url.rstrip("/")
        self._config = config
        self._cache = BlockCache(config)
        self._clients: dict[bool, Any] = {}
        self._seen: dict[str, tuple[str, int]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its URL."""
        return RemoteStore, (self.name, self._config)

    def place(self, file: str) -> str:
        """URL of a file."""
        return f"{self.name}/{file}"

    def size(self, file: str) -> int:
        """Bytes of a file."""
        import obstore

        return self.persist(file, lambda: obstore.head(self._client(), file)["size"])

    def read(self, file: str) -> bytes:
        """All of a small file."""
        import obstore

        def attempt() -> bytes:
            result = obstore.get(self._client(), file)
            content = result.bytes()
            if len(content) != result.meta["size"]:
                raise Incomplete(f"{len(content)} of {result.meta['size']} bytes")
            return bytes(content)

        return self.persist(file, attempt)

    def local(self, file: FileInfo) -> Path:
        """A copy in the cache folder, made once for all processes of this machine."""
        path = self._config.folder / "files" / f"{file.sha256[:32]}-{file.name}"
        try:
            with _locked(path):
                if path.is_file() and hash_file(path) == file.sha256:
                    return path
                with self.stream(file.name) as stream, atomic_write(path) as copy:
                    shutil.copyfileobj(stream, copy, 1 << 20)
                if hash_file(path) == file.sha256:
                    return path
                path.unlink()
        except FileNotFoundError as error:
            raise DataError(f"{self.place(file.name)}: is missing; upload it again") from error
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be written ({error.strerror}); free space there, "
                "or set another cache folder"
            ) from error
        raise DataError(f"{self.place(file.name)}: differs from its sha256; upload the set again")

    def range(self, file: FileInfo, offset: int, length: int, what: str) -> memoryview:
        """A part of a file, from blocks that are kept or fetched with their neighbours."""
        if offset + length > file.bytes:
            raise DataError(f"{self.place(file.name)}: ends before {what}; build the set again")
        size = self._config.block_bytes
        numbers = range(offset // size, -(-(offset + length) // size))
        blocks: dict[int, bytes | memoryview | None] = {
            number: self._cache.get(file, number) for number in numbers
        }
        for run in _runs([number for number in numbers if blocks[number] is None]):
            start = run[0] * size
            content = self._fetch(file, start, min((run[-1] + 1) * size, file.bytes))
            for number in run:
                piece = content[number * size - start : (number + 1) * size - start]
                self._cache.put(file, number, bytes(piece))
                blocks[number] = piece
            if len(run) == len(numbers):  # all of it in one piece already
                return content[offset - start : offset - start + length]
        joined = memoryview(b"".join(blocks[number] or b"" for number in numbers))
        first = offset - numbers.start * size
        return joined[first : first + length]

    def stream(self, file: str) -> io.BufferedReader:
        """A file from its start, read ahead of the reader."""
        return io.BufferedReader(_RemoteStream(self, file), 1 << 20)

    def feed(self, file: str, position: int) -> Feed:
        """What one response holds of a file from `position` on."""
        import obstore

        client = self._client(endless=True)

        def respond() -> Any:
            if position == 0:
                return obstore.get(client, file)
            try:
                return obstore.get(client, file, options={"range": {"offset": position}})
            except obstore.exceptions.NotSupportedError:  # the reader leaves out what it has
                return obstore.get(client, file)

        return Feed(respond, self._config.timeout)

    def same(self, file: str, meta: Any) -> None:
        """Refuse a file that is not the one seen first.

        Raises:
            DataError: If the file was replaced.
        """
        identity = (str(meta["e_tag"] or meta["last_modified"]), meta["size"])
        if self._seen.setdefault(file, identity) != identity:
            raise DataError(
                f"{self.place(file)}: was replaced while it was read; "
                "verify the set, then start again"
            )

    def persist(self, file: str, attempt: Callable[[], _T]) -> _T:
        """The result of an attempt, which is made again after a fault that may pass.

        Args:
            file: For messages.
            attempt: Tried up to `retries` times more.

        Raises:
            FileNotFoundError: If there is no such file.
            DataError: If no attempt succeeds, or a further one could not.
        """
        from obstore import exceptions

        refused = (
            exceptions.PermissionDeniedError,
            exceptions.UnauthenticatedError,
            exceptions.InvalidPathError,
            exceptions.UnknownConfigurationKeyError,
        )
        for number in itertools.count():
            try:
                return attempt()
            except exceptions.NotSupportedError as error:
                raise DataError(
                    f"{self.place(file)}: the server gives no parts of a file; "
                    "use the streaming reader, or copy the set"
                ) from error
            except refused as error:
                raise DataError(
                    f"{self.place(file)}: {_line(error)}; check the address and the credentials"
                ) from error
            except (exceptions.BaseError, Incomplete) as error:
                if number >= self._config.retries:
                    raise DataError(
                        f"{self.place(file)}: {number + 1} attempts failed, the last: "
                        f"{_line(error)}; {_advice(error)}, then start again"
                    ) from error
                pause = min(self._config.pause * 2**number, _LONGEST_PAUSE)
                pause *= _random.uniform(0.5, 1.5)  # so that many readers do not come back at once
                logger.warning(
                    "%s: %s; tried again in %.1f s", self.place(file), _line(error), pause
                )
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _fetch(self, file: FileInfo, start: int, stop: int) -> memoryview:
        """Bytes of a file in one request."""
        import obstore

        def attempt() -> memoryview:
            result = obstore.get(self._client(), file.name, options={"range": (start, stop)})
            if result.meta["size"] != file.bytes:
                raise DataError(
                    f"{self.place(file.name)}: has {result.meta['size']} bytes, not {file.bytes}; "
                    "upload the shard again"
                )
            self.same(file.name, result.meta)
            content = memoryview(result.bytes())
            if len(content) != stop - start:
                raise Incomplete(f"{len(content)} of {stop - start} bytes")
            return content

        try:
            return self.persist(file.name, attempt)
        except FileNotFoundError as error:
            raise DataError(f"{self.place(file.name)}: is missing; upload it again") from error

    def _client(self, endless: bool = False) -> Any:
        """The connection, made on first use; an endless one lets a response take any time."""
        if _first_user and _first_user[0] != os.getpid():
            raise UsageError(
                f"{self.name}: cannot be read in a forked process; start it with "
                "multiprocessing's forkserver or spawn"
            )
        if endless not in self._clients:
            from obstore.store import from_url

            _first_user[:] = [os.getpid()]
            urls = [self.name, *(os.environ.get(name, "") for name in _ENDPOINTS)]
            plain = any(url.startswith("http://") for url in urls)
            timeout = timedelta(days=1) if endless else timedelta(seconds=self._config.timeout)
            patience = timedelta(seconds=self._config.timeout)
            try:
                self._clients[endless] = from_url(
                    self.name,
                    client_options={
                        **({"allow_http": True} if plain else {}),
                        "timeout": timeout,
                        "connect_timeout": min(patience, timedelta(seconds=10)),
                    },
                    retry_config={"max_retries": 0, "retry_timeout": patience},
                )
            except Exception as error:  # obstore raises its own and ValueError for a bad URL
                raise UsageError(f"{self.name}: {_line(error)}; check the URL") from error
        return self._clients[endless]


class _RemoteStream(io.RawIOBase):
    """A file from its start to its end over as many responses as it takes."""

    def __init__(self, store: RemoteStore, file: str) -> None:
        self._store, self._file = store, file
        self._position = 0
        self._size: int | None = None
        self._chunk = memoryview(b"")
        self._feed: Feed | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 only at the end that the server stated."""
        while not self._chunk:
            if self._position == self._size:
                return 0
            self._chunk = self._store.persist(self._file, self._next)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._chunk))
        target[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        self._position += count
        return count

    def close(self) -> None:
        """End the response."""
        if self._feed:
            self._feed.close()
            self._feed = None
        super().close()

    def _next(self) -> memoryview:
        """The next chunk, of a new response where the old one failed."""
        try:
            if self._feed is None:
                self._feed = self._store.feed(self._file, self._position)
                meta, start = self._feed.begin()
                self._store.same(self._file, meta)
                self._size = meta["size"]
                self._feed.skip(self._position - start)
                if self._position == self._size:
                    return memoryview(b"")
            return self._feed.take()
        except BaseException:
            if self._feed:
                self._feed.close()
                self._feed = None
            raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Neighbours together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _advice(error: Exception) -> str:
    """What to do about a fault that stays."""
    if _CLOUD_IDENTITY in str(error):  # asked only where no credentials were given
        return "give credentials in the environment (AWS_SKIP_SIGNATURE=true for a public bucket)"
    return "check the server and the network"


def _line(error: Exception) -> str:
    """The first line of a message; `obstore` adds many."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
