"""`gliomoe shards build`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from gliomoe.data_shards.building.build import build_shards
from gliomoe.data_shards.building.plan import BuildConfig, by_key, survey_sources
from gliomoe.data_shards.ingest import listing

EXAMPLE = "gliomoe shards build data/bids data/brats --out shards --workers 4"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards build`."""

    source: tyro.conf.Positional[tuple[Path, ...]]
    """Data sets, case folders, folders of DICOM files, manifests (.csv, .tsv) or files; several
    are built into one set."""
    out: Path | None = None
    """Folder of the shard set; the same command continues one that was interrupted."""
    build: Annotated[BuildConfig, tyro.conf.arg(name="")] = field(default_factory=BuildConfig)
    """How it is built."""
    dry_run: bool = False
    """Print what would be read as which sequence and what is left out; write nothing."""
    json: bool = False
    """Print the result as JSON."""

    def __post_init__(self) -> None:
        """Refuse a build without a folder."""
        if self.out is None and not self.dry_run:
            raise ValueError("--out is missing: name the folder of the shard set, or --dry-run")


def run(options: Options) -> int:
    """Build; 1 if a study could not be used."""
    if options.out is None or options.dry_run:
        return _list(options)
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


def _list(options: Options) -> int:
    """Print what the sources hold; 1 if a study has no series."""
    surveys = survey_sources(options.source, options.build)
    listed = listing.to_json(options.source, surveys)
    studies = [study for survey in surveys for study in survey.studies]
    empty = sum(not study.series for study in studies)
    if options.json:
        print(json.dumps({"studies": len(studies), "empty": empty, "sources": listed}, indent=2))
    else:
        print(listing.to_text(listed))
        print(f"{len(studies)} studies, {empty} of them without a series; nothing was written")
    by_key(surveys, options.build)  # raises where two studies have one key
    return 1 if empty else 0
