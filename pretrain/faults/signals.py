"""A signal only sets a flag; the training loop looks at it between steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Pre-emption, a time limit's early warning, Ctrl-C."""


class StopFlag:
    """Whether the run has been asked to stop."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        """True once a signal came."""
        return self.name is not None

    def set(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal."""
        self.name = signal.Signals(number).name


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
