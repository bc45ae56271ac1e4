"""Where a process is in its run, as it tells the others."""

import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Literal

Phase = Literal["starting", "waiting for data", "computing", "saving", "showing"]


class Progress:
    """Step and phase of the main thread, which sets them; other threads read them."""

    def __init__(self) -> None:
        self.step = 0
        """Steps done."""
        self.phase: Phase = "starting"
        self._since = time.monotonic()

    def at(self, phase: Phase) -> None:
        """Note that a phase begins."""
        self.phase, self._since = phase, time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the phase has lasted."""
        return time.monotonic() - self._since


def main_thread() -> tuple[str, bool]:
    """The line of this package that the main thread is at, and whether it waits for other ranks."""
    innermost = sys._current_frames()[threading.main_thread().ident or 0]
    frames = list(traceback.walk_stack(innermost))
    names = [frame.f_globals.get("__name__", "") for frame, _ in frames]
    own = [at for at, name in zip(frames, names, strict=True) if name.startswith("gliomoe.")]
    frame, line = (own or frames)[0]
    place = f"{Path(frame.f_code.co_filename).name}:{line} in {frame.f_code.co_name}"
    return place, any(name.startswith("torch.distributed.") for name in names)
