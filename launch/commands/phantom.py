"""`gliomoe phantom`: simulate a cohort."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig

EXAMPLE = "gliomoe phantom cohort/labelled --subjects 20 --protocol A --spacing 3.5 --seed 7"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe phantom`."""

    out: tyro.conf.Positional[Path]
    """BIDS folder to make, or to continue."""
    cohort: Annotated[CohortConfig, tyro.conf.arg(name="")]
    """What is simulated."""
    workers: int = min(8, len(os.sched_getaffinity(0)))
    """Processes; each needs up to 1.5 GB at 1 mm."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Simulate the cohort."""
    report = write_cohort(options.out, options.cohort, options.workers)
    if options.json:
        print(json.dumps({"out": str(options.out), **dataclasses.asdict(report)}))
    else:
        kept = f", {report.kept} of them were there" if report.kept else ""
        print(f"{options.out}: {report.subjects} subjects{kept}")
    return 0
