"""`gliomoe shards overlap`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.format.dataset import read_dataset
from gliomoe.data_shards.format.index import INDEX, Index
from gliomoe.data_shards.identity.fingerprints import FINGERPRINTS, Fingerprints
from gliomoe.data_shards.identity.overlap import Scans, find_matches

EXAMPLE = "gliomoe shards overlap shards other_shards"


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards overlap`."""

    folder: tyro.conf.Positional[Path]
    """A shard set."""
    other: tyro.conf.Positional[Path | None] = None
    """Another; without it duplicates inside the first are looked for."""
    json: bool = False
    """Print the result as JSON."""


def run(options: Options) -> int:
    """Compare; 1 if a scan is there twice."""
    if options.other is not None and options.other.resolve() == options.folder.resolve():
        raise UsageError(f"{options.folder}: named twice; name it once to look inside it")
    mine = _opened(options.folder)
    matches = find_matches(mine, None if options.other is None else _opened(options.other))
    if options.json:
        print(json.dumps([asdict(match) for match in matches], indent=2))
        return 1 if matches else 0
    for match in matches:
        how = "equal in every voxel" if match.exact else f"{match.sequence} {match.score:.3f}"
        print(f"{match.key}  {match.other}  {how}")
    where = "twice" if options.other is None else "in both"
    studies = len({match.key for match in matches})
    print(f"{studies} of {len(mine[0])} studies of {options.folder} are there {where}")
    return 1 if matches else 0


def _opened(folder: Path) -> Scans:
    """Index and signatures of a finished set."""
    read_dataset(folder)
    return Index.open(folder / INDEX), Fingerprints.open(folder / FINGERPRINTS)
