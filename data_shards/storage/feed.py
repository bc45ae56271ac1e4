"""One response of a server, read ahead by a thread, so that one that stands still is noticed."""

import queue
import threading
from collections.abc import Callable
from typing import Any

_CHUNK = 4 << 20
_AHEAD = 2
_POLL = 0.2


class Incomplete(Exception):
    """A response ended early or stands still; another may do better."""


class Feed:
    """Chunks of a response.

    Args:
        respond: Makes the request; called in the thread.
        timeout: Seconds that the reader waits for the next chunk.
    """

    def __init__(self, respond: Callable[[], Any], timeout: float) -> None:
        self._timeout = timeout
        self._left = 0
        self._skip = 0
        self._chunks: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        # A daemon, because nothing ends a request that stands still.
        threading.Thread(target=self._run, args=(respond,), daemon=True).start()

    def begin(self) -> tuple[Any, int]:
        """What the server says of the file, and the byte at which the response begins."""
        meta, (start, stop) = self._get()
        self._left = stop - start
        return meta, start

    def skip(self, count: int) -> None:
        """Leave out the first bytes of what comes."""
        self._skip = count

    def take(self) -> memoryview:
        """The next chunk.

        Raises:
            Incomplete: If none comes in time, or the response ends before its announced end.
        """
        while True:
            if not self._left:
                raise Incomplete("the response ended early")
            chunk = memoryview(self._get())
            self._left -= len(chunk)
            dropped = min(self._skip, len(chunk))
            self._skip -= dropped
            if dropped < len(chunk):
                return chunk[dropped:]

    def close(self) -> None:
        """Let the thread end."""
        self._closed.set()

    def _get(self) -> Any:
        """What the thread brings next."""
        try:
            item = self._chunks.get(timeout=self._timeout)
        except queue.Empty:
            raise Incomplete(f"nothing came for {self._timeout:g} s") from None
        if isinstance(item, Exception):
            raise item
        return item

    def _run(self, respond: Callable[[], Any]) -> None:
        """Bring the start of the response, its chunks and what ends it."""
        try:
            response = respond()
            self._put((response.meta, response.range))
            for chunk in response.stream(min_chunk_size=_CHUNK):
                self._put(chunk)
                if self._closed.is_set():
                    return
            self._put(Incomplete("the response ended early"))
        except Exception as error:  # handed to the reader
            self._put(error)

    def _put(self, item: Any) -> None:
        """Hand over, unless the reader has gone."""
        while not self._closed.is_set():
            try:
                self._chunks.put(item, timeout=_POLL)
                return
            except queue.Full:
                continue
