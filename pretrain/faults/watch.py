"""One rank lost, and all end: soon, with one message that names the rank and the cause.

A process that waits for others in a collective cannot be interrupted, so threads do the talking.
Each second a rank leaves in the store of the run where it is, and looks for a cause to end that
another has left. It also looks at the rank after it, in a ring, whose signs of life stop when it is
killed or its node is lost; each process has one other to look at, however many there are. Rank 0
looks for one that hangs: the first that is neither waiting for others nor getting on. Whoever finds
something leaves the cause; the first to do so prints it. Threads end a process without its main
thread, readers included (`loading` ties them to their process).
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import torch.distributed as dist

from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.faults.progress import Phase, Progress, main_thread

_INTERVAL = 1.0
"""Seconds between two signs of life."""
_READ = 3 * _INTERVAL
"""Seconds in which every other rank has read a cause, before its finder takes the store along."""
_CONFIRMED = 2
"""Later signs that must agree before a rank is said to hang: those of several ranks are not of one
moment, and where the others have just got on, one that only waited for them looks like the last."""
_FUSE = 20.0
"""Seconds that a main thread which gave up may take to end."""
_CAUSE = "cause"

logger = logging.getLogger(__name__)


class RankError(RuntimeError):
    """What made one rank, and so the run, end; the message names it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class _Cause:
    """Why the run ends."""

    text: str
    code: int
    """Exit code of every process."""
    finder: int
    """The rank that left word of it."""


class Watch:
    """Context in which this rank tells the others how it is, and ends when one is lost.

    Args:
        store: This process's connection to the store of the run.
        progress: Kept up to date by the main thread.
        limits: Phase → seconds that it may last.
        silence: Seconds without a sign of life after which a rank, or the store, is lost.
        leave: Told the exit code of the command before this process is ended from a thread; the
            exit code of the process.
    """

    def __init__(
        self,
        store: dist.Store,
        progress: Progress,
        limits: dict[Phase, float],
        silence: float,
        leave: Callable[[int], int],
    ):
        self._store, self._progress, self._limits = store, progress, limits
        self._silence, self._leave = silence, leave
        self._rank, self._world = distributed.world()
        self._next = (self._rank + 1) % self._world
        self._sign = b""
        self._seen = self._heard = time.monotonic()
        self._beats = 0
        self._suspect: tuple[int, int, int] | None = None  # rank, step, its beats when first seen
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=target, name="watch", daemon=True)
            for target in (self._talk, self._listen)
        ]

    def __enter__(self) -> "Watch":
        """Begin to tell and to look."""
        self._tell()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave word of an error, which then names this rank.

        Raises:
            RankError: If the error is this rank's own, and the first.
            SystemExit: If another rank was first, and tells.
        """
        if error is None:
            error = self._finish()
        if error is None:
            return
        if _from_other(error):
            # Its own threads will know which one it was, and end this process.
            time.sleep(self._silence + 2 * _READ)
        cause = self._own_cause(error)
        self._done.set()
        fuse = threading.Timer(_FUSE, self._end, [cause.code])
        fuse.daemon = True
        fuse.start()
        if not self._claim(cause):
            raise SystemExit(cause.code) from None
        time.sleep(_READ)
        if isinstance(error, Exception):
            raise RankError(cause.text, cause.code) from error

    def _finish(self) -> BaseException | None:
        """Fall silent together with the others; the error if one of them does not come."""
        try:
            distributed.barrier()
        except RuntimeError as error:
            return error
        self._done.set()
        for thread in self._threads:
            thread.join()
        return None

    def _talk(self) -> None:
        """Tell how this rank is, and look at others."""
        while not self._done.wait(_INTERVAL):
            try:
                self._tell()
                if self._store.check([_CAUSE]):
                    cause = _Cause(**json.loads(self._store.get(_CAUSE)))
                    if cause.finder != self._rank:
                        self._end(cause.code)
                self._look_after_next()
                if self._rank == 0:
                    self._look_for_hanging()
            except RuntimeError:  # the store; `_listen` ends the process if it does not come back
                continue
            self._heard = time.monotonic()

    def _listen(self) -> None:
        """Give up once the store has been silent, which may hold `_talk` up."""
        while not self._done.wait(_INTERVAL):
            if time.monotonic() - self._heard > self._silence:
                if os.environ["LOCAL_RANK"] == "0":
                    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
                    logger.error(
                        "gliomoe pretrain: error: %s: no contact with the run's first node (%s) "
                        "for %.0f s, it or the network is lost; the same command continues",
                        self._name(self._rank, socket.gethostname()),
                        place,
                        self._silence,
                    )
                self._end(1)

    def _tell(self) -> None:
        """Leave a sign of life."""
        self._beats += 1
        place, waits = main_thread()
        sign = {
            "beats": self._beats,
            "host": socket.gethostname(),
            "step": self._progress.step,
            "phase": self._progress.phase,
            "seconds": self._progress.seconds,
            "place": place,
            "waits": waits,
        }
        self._store.set(f"{self._rank}", json.dumps(sign))

    def _look_after_next(self) -> None:
        """Whether the next rank still gives signs of life."""
        key, now = f"{self._next}", time.monotonic()
        sign = self._store.get(key) if self._store.check([key]) else b""
        if sign != self._sign:
            self._sign, self._seen = sign, now
        elif now - self._seen > self._silence:
            last = json.loads(sign) if sign else {}
            found = (
                "is gone: killed, perhaps for want of memory, or its node is lost; no sign of life "
                f"for {self._silence:.0f} s, the last"
            )
            self._accuse(self._next, last, found)

    def _look_for_hanging(self) -> None:
        """Whether a rank does not get on."""
        keys = [f"{rank}" for rank in range(self._world)]
        if not self._store.check(keys):
            return
        signs = [json.loads(sign) for sign in self._store.multi_get(keys)]
        # Those that wait for others wait for one that does not; if all do, for the last of them.
        waited_for = [r for r, sign in enumerate(signs) if not sign["waits"]] or range(self._world)
        rank = min(waited_for, key=lambda r: (signs[r]["step"], -signs[r]["seconds"]))
        sign = signs[rank]
        if sign["seconds"] <= self._limits[sign["phase"]]:
            self._suspect = None
        elif self._suspect is None or self._suspect[:2] != (rank, sign["step"]):
            self._suspect = (rank, sign["step"], sign["beats"])
        elif sign["beats"] - self._suspect[2] >= _CONFIRMED:
            found = f"hangs in {sign['place']} for {sign['seconds']:.0f} s"
            self._accuse(rank, sign, found)

    def _accuse(self, rank: int, sign: dict[str, Any], found: str) -> None:
        """End the run for what another rank does, or does not."""
        where = f" while {sign['phase']}, step {sign['step']}" if sign else ""
        name = self._name(rank, sign.get("host", "an unknown host"))
        text = f"{name} {found}{where}; the same command continues"
        if self._claim(_Cause(text, 1, self._rank)):
            self._done.set()
            logger.error("gliomoe pretrain: error: %s", text)
            time.sleep(_READ)
            self._end(1)

    def _own_cause(self, error: BaseException) -> _Cause:
        """What this rank says of its own end."""
        if isinstance(error, KeyboardInterrupt):
            return _Cause("interrupted", os.EX_TEMPFAIL, self._rank)
        known = hasattr(error, "exit_code") or isinstance(error, OSError)
        text = str(error) if known else f"{type(error).__name__}: {error}; --debug shows where"
        name = self._name(self._rank, socket.gethostname())
        return _Cause(f"{name}: {text}", getattr(error, "exit_code", 1), self._rank)

    def _claim(self, cause: _Cause) -> bool:
        """Leave the cause, unless another rank was first."""
        mine = json.dumps(asdict(cause))
        try:
            return self._store.compare_set(_CAUSE, "", mine).decode() == mine
        except RuntimeError:  # without a store there is nobody else to tell
            return True

    def _name(self, rank: int, host: str) -> str:
        """A rank for a person."""
        return f"rank {rank} of {self._world} on {host}"

    def _end(self, code: int) -> None:
        """End this process, whatever its main thread is at."""
        os._exit(self._leave(code))


def _from_other(error: BaseException) -> bool:
    """Whether an error only says that a collective failed, as it does when another rank ends."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )
