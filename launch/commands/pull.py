"""`gliomoe pull`: a published checkpoint, fetched and checked."""

from dataclasses import dataclass
from pathlib import Path

import tyro

EXAMPLE = "gliomoe pull https://example.org/gliomoe-tiny --out checkpoints/gliomoe-tiny"


@dataclass(frozen=True)
class Options:
    """Where from and where to."""

    source: tyro.conf.Positional[str]
    """Path or http(s) address of a checkpoint folder."""
    out: Path | None = None
    """Copy the checkpoint to this folder; without it the cache keeps it."""


def run(options: Options) -> int:
    """Fetch, check, and print where the checkpoint is."""
    from gliomoe.models.hub import fetch

    print(fetch(options.source, options.out))
    return 0
