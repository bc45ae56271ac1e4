"""Files of JSON lines that a run appends to, and what others read from them while it does."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gliomoe.data_shards.files import atomic_write

TRACE = "metrics.jsonl"
"""A line a step; the same whenever the run is repeated or continued, bit for bit."""
TIMING = "timing.jsonl"
"""How long steps took, a line every `monitor.log_every`; never cut, for lost work took time too."""
EXPERTS = "experts.jsonl"
"""How the experts are used, a line every `monitor.log_every`."""
PROBE = "probe.jsonl"
"""What the probe says."""
STARTS = "starts.jsonl"
"""When and where the run was started."""

MEAN = 20
"""Steps over which losses are averaged to tell them."""
_NO_LOSSES = ("step", "norm", "lr", "damaged")


class Journal:
    """A file to append lines to; several may be opened in turn, one at a time.

    Args:
        path: The file; lines that are there stay.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line; whoever reads the file sees it at once."""
        print(json.dumps(entry), file=self._file, flush=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The lines of a file that are whole; none if there is no file.

    Args:
        path: The file, which another process may be writing.
        most: Take so many, evenly; None takes all.
    """
    if not path.is_file():
        return []
    lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line[-1] == "\n"]
    count = min(len(lines), most or len(lines))
    return [json.loads(lines[i * len(lines) // count]) for i in range(count)]


def cut(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the lines of a file from the first one not to keep, and a last one that is not whole."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or not keep(json.loads(line)):
            break
        kept.append(line)
    with atomic_write(path, "w") as file:
        file.writelines(kept)


def mean_losses(trace: Sequence[dict[str, Any]], done: int) -> dict[str, float]:
    """Loss and its parts, averaged over the last steps before `done` that were not skipped.

    Args:
        trace: Lines of `TRACE`.
        done: Steps done.
    """
    lines = [line for line in trace if line["norm"] is not None and line["step"] < done][-MEAN:]
    names = [name for name in (lines[-1] if lines else {}) if name not in _NO_LOSSES]
    return {name: fmean(line[name] for line in lines) for name in names}
