"""`gliomoe phantom`: simulate a cohort."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.subject import CohortConfig

EXAMPLE = "gliomoe phantom cohort/labelled --subjects 20 --protocol A --spacing 3.5 --seed 7"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe phantom`."""

    out: tyro.conf.Positional[Path]
    """BIDS folder to make, or to continue."""
    subjects: int
    """How many subjects."""
    protocol: Literal["A", "B", "C", "mixed"] = "A"
    """Kind of scanner: A to train on, B and C shifted, mixed draws one for each subject."""
    unlabelled: bool = False
    """An archive for pretraining: most subjects without glioma, sequences missing, no labels."""
    spacing: float = 1.0
    """Voxel size in mm."""
    seed: int = 0
    """Same seed and options, same bytes."""
    workers: int = min(8, len(os.sched_getaffinity(0)))
    """Processes; each needs up to 1.5 GB at 1 mm."""
    glioma_share: float = 0.3
    """Gliomas in an unlabelled cohort; a labelled one is all gliomas."""
    white_matter_share: float = 0.2
    """White-matter disease in an unlabelled cohort."""
    stroke_share: float = 0.05
    """Strokes in an unlabelled cohort."""
    missing_labels: float = 0.0
    """Share of the marker and grade labels that are withheld."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Simulate the cohort."""
    fields = (field.name for field in dataclasses.fields(CohortConfig))
    config = CohortConfig(**{name: getattr(options, name) for name in fields})
    report = write_cohort(options.out, config, options.workers)
    if options.json:
        print(json.dumps({"out": str(options.out), **dataclasses.asdict(report)}))
    else:
        kept = f", {report.kept} of them were there" if report.kept else ""
        print(f"{options.out}: {report.subjects} subjects{kept}")
    return 0
