"""How long the parts of a step take, on the clock of the device."""

import time
from typing import Any

import torch


class Stopwatch:
    """Times of stretches by name.

    On a GPU the marks are events, which the device stamps as it comes to them: nothing waits for
    it. `seconds` may be called once it is known to have passed the last mark.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._laps: list[tuple[str, Any]] = []
        self.mark("")

    def mark(self, name: str) -> None:
        """End a stretch, named here, and begin the next; one without a name is not counted."""
        if not self._cuda:
            self._laps.append((name, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._laps.append((name, event))

    def seconds(self) -> dict[str, float]:
        """The sum of the stretches of each name."""
        spent: dict[str, float] = {}
        for (_, begun), (name, ended) in zip(self._laps, self._laps[1:], strict=False):
            if name:
                spent[name] = spent.get(name, 0.0) + self._between(begun, ended)
        return spent

    def _between(self, begun: Any, ended: Any) -> float:
        """Seconds from one mark to another."""
        return begun.elapsed_time(ended) / 1000 if self._cuda else ended - begun
