"""Studies that could not be read: named in a file of the run, counted at its end."""

import json
import logging
from pathlib import Path

from gliomoe.data_shards.files import atomic_write

DAMAGED = "damaged.jsonl"
"""File of a run: for each study that was left out, the first step that missed it and why."""

logger = logging.getLogger(__name__)


class Damaged:
    """The studies that a run has left out so far.

    Args:
        run: Folder of the run.
        start: First step of this process; what is there from later steps is dropped.
        active: True on the process that writes.
    """

    def __init__(self, run: Path, start: int, active: bool):
        self._path, self._active = run / DAMAGED, active
        self._steps: dict[str, int] = {}
        if active and self._path.is_file():
            lines = map(json.loads, self._path.read_text("utf-8").splitlines())
            self._steps = {line["what"]: line["step"] for line in lines if line["step"] < start}

    def add(self, step: int, messages: tuple[str, ...]) -> None:
        """Write down what is new; errors as of `atomic_write`."""
        new = [message for message in messages if message not in self._steps]
        if not (self._active and new):
            return
        self._steps |= dict.fromkeys(new, step)
        with atomic_write(self._path, "w") as file:
            for message, first in self._steps.items():
                print(json.dumps({"step": first, "what": message}), file=file)

    def sum_up(self) -> None:
        """Say how many there were, and where they are named."""
        if self._steps:
            logger.warning(
                "%d damaged studies left out, others took their place; see %s",
                len(self._steps),
                self._path,
            )
