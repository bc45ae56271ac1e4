"""`gliomoe shards merge`."""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from gliomoe.data_shards.building.merge import merge_shards

EXAMPLE = "gliomoe shards merge parts/1 parts/2 parts/3 --out shards"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards merge`."""

    part: tyro.conf.Positional[tuple[Path, ...]]
    """All parts of one build, or whole sets with equal settings and different studies."""
    out: Path
    """Folder of the merged set; the same command continues one that was interrupted."""
    shard_mb: float | None = None
    """Megabytes after which a shard is closed; None takes that of the sets."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Merge; 1 if a study could not be used in one of the sets."""
    report = merge_shards(options.part, options.out, options.shard_mb)
    if options.json:
        failed = [vars(failure) for failure in report.failed]
        result = {**report.info, "out": str(report.out), "failed": failed}
        print(json.dumps(result, indent=2))
    else:
        size = sum(shard["bytes"] for shard in report.info["shards"]) / 1e6
        print(
            f"{report.out}: {report.info['studies']} studies of {len(options.part)} sets, "
            f"{size:.1f} MB, {report.seconds:.0f} s"
        )
        if report.failed:
            print(f"{len(report.failed)} studies left out, see {report.out / 'failed.csv'}")
        if twice := report.info["duplicates"]:
            print(f"{twice} pairs show the same scan, see {report.out / 'duplicates.csv'}")
    return 1 if report.failed else 0
