"""`gliomoe shards inspect`."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import tyro

from gliomoe.data_shards.reading.indexed import ShardSet

EXAMPLE = "gliomoe shards inspect shards --json True"

_SHOWN = 20


@dataclass(frozen=True)
class Options:
    """Options of `gliomoe shards inspect`."""

    place: tyro.conf.Positional[str]
    """The shard set: a folder or a URL (s3, gs, az, http, https)."""
    key: tyro.conf.Positional[str | None] = None
    """A study; without one the whole set is described."""
    json: bool = False
    """Print everything as JSON."""


def run(options: Options) -> int:
    """Show a set or a study."""
    shards = ShardSet.open(options.place)
    if options.key is not None:
        _study(shards, options.key, options.json)
    elif options.json:
        entries = [asdict(shards.entry(i)) for i in range(len(shards))]
        print(json.dumps({**shards.info, "entries": entries}, indent=2))
    else:
        _set(shards)
    return 0


def _set(shards: ShardSet) -> None:
    """The set in a few lines and the first of its studies."""
    info = shards.info
    counts = ", ".join(f"{name} {count}" for name, count in info["sequences"].items())
    size = sum(shard["bytes"] for shard in info["shards"])
    print(f"studies      {info['studies']}, {info['labelled']} with a segmentation")
    print(f"sequences    {counts}")
    print(f"shards       {len(info['shards'])}, {size / 1e6:.1f} MB")
    print(f"preprocess   {json.dumps(info['preprocess'])}")
    print(f"fingerprint  {shards.fingerprint}\n")
    for i in range(min(len(shards), _SHOWN)):
        entry = shards.entry(i)
        shape = " x ".join(map(str, entry.shape))
        labelled = " seg" if entry.has_seg else ""
        print(f"{entry.key}  {shape}  {' '.join(entry.sequences)}{labelled}")
    if len(shards) > _SHOWN:
        print(f"... and {len(shards) - _SHOWN} more; --json True lists all")


def _study(shards: ShardSet, key: str, as_json: bool) -> None:
    """The record of a study, and where it lies."""
    i = shards.position(key)
    path, place = shards.place(i)
    shown: dict[str, Any] = {
        **shards.record(i),
        "stored": {"shard": path, "offset": place.offset, "bytes": place.length},
    }
    if as_json:
        print(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        print(f"{name:12s} {value if isinstance(value, str) else json.dumps(value)}")
