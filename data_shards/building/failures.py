"""`failed.csv`: the studies of a build that could not be used, and why."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from gliomoe.data_shards.files import write_list

FAILED = "failed.csv"

_COLUMNS = ["key", "source", "reason"]


@dataclass(frozen=True)
class Failure:
    """One study that could not be used."""

    key: str
    source: str
    """Folder or file, for the person who repairs it."""
    reason: str


def read_failures(folder: Path) -> list[Failure]:
    """The failures listed in a folder; none if there is no list."""
    path = folder / FAILED
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Failure(**row) for row in csv.DictReader(file)]


def write_failures(folder: Path, failures: Sequence[Failure]) -> None:
    """List failures atomically; no file if there are none."""
    write_list(folder / FAILED, _COLUMNS, [astuple(failure) for failure in failures])
