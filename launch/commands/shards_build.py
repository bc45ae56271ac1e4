"""`gliomoe shards build`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from gliomoe.data_shards.build import BuildConfig, build_shards

EXAMPLE = "gliomoe shards build data/bids data/brats --out shards --workers 4"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards build`."""

    source: tyro.conf.Positional[tuple[Path, ...]]
    """Data sets, case folders or files; several are built into one set."""
    out: Path
    """Folder of the shard set; the same command continues one that was interrupted."""
    build: Annotated[BuildConfig, tyro.conf.arg(name="")] = field(default_factory=BuildConfig)
    """How it is built."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Build; 1 if a study could not be used."""
    report = build_shards(options.source, options.out, options.build)
    info = report.info
    if options.json:
        failed = [vars(failure) for failure in report.failed]
        print(json.dumps({**info, "out": str(report.out), "failed": failed}, indent=2))
    else:
        counts = ", ".join(f"{name} {count}" for name, count in info["sequences"].items())
        size = sum(shard["bytes"] for shard in info["shards"]) / 1e6
        print(
            f"{report.out}: {info['studies']} studies ({report.built} new), {counts}, "
            f"{info['labelled']} labelled, {size:.1f} MB, {report.seconds:.0f} s"
        )
        if report.failed:
            print(f"{len(report.failed)} studies left out, see {report.out / 'failed.csv'}")
        if twice := info["duplicates"]:
            print(f"{twice} pairs show the same scan, see {report.out / 'duplicates.csv'}")
    return 1 if report.failed else 0
