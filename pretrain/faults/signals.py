"""A signal asks a run to stop: between two steps, with a checkpoint, or at once while it starts.

While a run starts, and while it waits for data between two steps, a signal interrupts it there.
Otherwise it only sets a flag, which the training loop looks at between steps. A second Ctrl-C ends
the run where it is.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Pre-emption, a time limit's early warning, Ctrl-C."""
_ECHO = 2.0
"""Seconds in which one Ctrl-C arrives twice, from the terminal and from `torchrun`."""
_PR_SET_PDEATHSIG = 1


class StopFlag:
    """Whether the run has been asked to stop."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._asked = 0.0
        self._interrupts = True

    def __bool__(self) -> bool:
        """True once a signal came."""
        return self.name is not None

    def set(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal.

        Raises:
            KeyboardInterrupt: If there is nothing to wait for, or Ctrl-C is insisted on.
        """
        now = time.monotonic()
        again = bool(self)
        insisted = again and number == signal.SIGINT and now - self._asked > _ECHO
        if not again:
            self.name, self._asked = signal.Signals(number).name, now
        if self._interrupts or insisted:
            self._interrupts = False  # once, so that what cleans up is left in peace
            raise KeyboardInterrupt

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that a signal interrupts with `KeyboardInterrupt`, one that came before also."""
        self._interrupts = True
        try:
            if self:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def defer(self) -> None:
        """From now on only set the flag, but for blocks of `waiting`."""
        self._interrupts = False


@contextmanager
def deadly() -> Iterator[None]:
    """A block in which `SIGNALS` end the process, whatever it waits for, as there is no work yet.

    A handler in Python would be kept waiting as long as the block waits for other processes.
    """
    former = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that `SIGNALS` set while the block runs; then the former handlers are back."""
    flag = StopFlag()
    former = {number: signal.signal(number, flag.set) for number in SIGNALS}
    # The launcher holds them back until here, so that none is lost while a process starts.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have this process signalled when the one that started it is gone, however that ended.

    Args:
        parent: The process that started this one.
        number: The signal.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it was gone before
        os.kill(os.getpid(), number)
