"""`gliomoe shards verify`."""

import json
from dataclasses import asdict, dataclass

import tyro

from gliomoe.data_shards.building.verify import verify

EXAMPLE = "gliomoe shards verify shards"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards verify`."""

    place: tyro.conf.Positional[str]
    """The shard set: a folder or a URL (s3, gs, az, http, https)."""
    decode: bool = False
    """Decode every study as well; finds what was damaged before it was hashed."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Verify; 1 if anything is damaged."""
    report = verify(options.place, options.decode)
    if options.json:
        print(json.dumps(asdict(report), indent=2))
        return 1 if report.damage else 0
    for damage in report.damage:
        place = f"{options.place}/{damage.shard}" + (f", {damage.key}" if damage.key else "")
        print(f"{place}: {damage.reason}")
    state = f"{len(report.damage)} damaged" if report.damage else "whole"
    print(f"{options.place}: {report.studies} studies in {report.shards} shards, {state}")
    return 1 if report.damage else 0
