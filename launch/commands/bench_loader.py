"""`gliomoe bench loader`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from gliomoe.launch.bench.loader import LoaderBench, measure_loader

EXAMPLE = "gliomoe bench loader data/brats --json"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe bench loader`."""

    source: tyro.conf.Positional[Path | None] = None
    """Cases with NIfTI files, in any layout; without it some are simulated at 1 mm."""
    bench: Annotated[LoaderBench, tyro.conf.arg(name="")] = field(default_factory=LoaderBench)
    """What is measured."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Measure and print."""
    result = measure_loader(options.source, options.bench)
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    rows = {"ours": result["ours"], **result["peers"]}
    rows |= {f"ours, {name}": figure for name, figure in result["variants"].items()}
    for name, figure in rows.items():
        print(f"{name:26s} {figure['crops_per_s']:8.1f} crops/s")
    setup = result["setup"]
    ratio = setup["shard_bytes"] / setup["nifti_bytes"]
    print(f"shards take {ratio:.2f} of the bytes of the .nii.gz files they came from")
    return 0
