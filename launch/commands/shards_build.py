"""`gliomoe shards build`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gliomoe.data_shards.build import BuildConfig, build_shards
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.launch.options import Switch

EXAMPLE = "gliomoe shards build data/bids data/brats --out shards --workers 4"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards build`."""

    source: tyro.conf.Positional[tuple[Path, ...]]
    """Data sets, case folders or files; several are built into one set."""
    out: Path
    """Folder of the shard set; the same command continues one that was interrupted."""
    layout: Literal["auto", "bids", "brats", "case"] = "auto"
    """Layout of the sources."""
    keep_ids: Switch = False
    """Keep subject and session in the keys instead of a salted hash."""
    salt: str = "gliomoe"
    """Text that salts the hashed keys; with one of your own nobody else can recompute them."""
    seg_labels: Literal["auto", "brats2021", "brats2023"] = "auto"
    """Convention of the labels in segmentations; auto goes by the spelling of the file names."""
    workers: int = 1
    """Processes that read and preprocess; they do not change the result."""
    shard_mb: float = 512.0
    """Megabytes after which a shard is closed."""
    preprocess: Annotated[PreprocessConfig, tyro.conf.arg(name="")] = field(
        default_factory=PreprocessConfig
    )
    """Preprocessing."""
    json: Switch = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Build; 1 if a study could not be used."""
    config = BuildConfig(
        layout=options.layout,
        keep_ids=options.keep_ids,
        salt=options.salt,
        seg_labels=options.seg_labels,
        workers=options.workers,
        shard_mb=options.shard_mb,
        preprocess=options.preprocess,
    )
    report = build_shards(options.source, options.out, config)
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
    return 1 if report.failed else 0
