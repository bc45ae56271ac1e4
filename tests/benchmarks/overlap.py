"""How alike copies of a scan, sessions of a person and different persons are to a signature.

    python tests/benchmarks/overlap.py SOURCE [SOURCE ...]

builds the sources into one set at 1 mm by the default chain, changes every scan in several ways,
and writes the least likeness of each kind of copy and the greatest of scans that differ to
tests/benchmarks/results/overlap.json, beside the threshold, machine and versions.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.box import bounding_box
from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.identity.overlap import THRESHOLD, scores
from gliomoe.data_shards.identity.signature import signature
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results/overlap.json"
COPIES = {
    "cropped and scaled": (1.0, 1.0, 1.0),
    "resampled to 1.5 mm": (1.5, 1.5, 1.5),
    "resampled to 2 mm": (2.0, 2.0, 2.0),
    "slices of 3 mm": (1.0, 1.0, 3.0),
    "slices of 4 mm": (1.0, 1.0, 4.0),
}


def intensities(shards: ShardSet, i: int) -> dict[str, np.ndarray]:
    """Sequence → [D, H, W] float32 intensities of a study."""
    study = shards.study(i)
    box = study.codes((0, 0, 0), study.record["shape"])
    names = study.record["sequences"]
    return {
        name: codes.astype(np.float32) * np.float32(scale) + np.float32(offset)
        for name, codes, (scale, offset, *_) in zip(names, box.codes, box.levels, strict=True)
    }


def changed(volume: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Cut to its tissue, dimmed, smoothed and resampled from 1 mm."""
    volume = volume[bounding_box(volume != 0)] * np.float32(0.3)
    factors = np.divide(1.0, spacing)
    smooth = ndimage.gaussian_filter(volume, np.maximum(0, (1 / factors - 1) / 2))
    return ndimage.zoom(smooth, factors, order=1, grid_mode=True, mode="grid-constant")


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Of two signatures."""
    return float(scores(a[None], b[None])[0, 0])


def measure(shards: ShardSet) -> dict:
    """All comparisons."""
    scans: list[tuple[str, str, str, np.ndarray]] = []
    copies: dict[str, list[float]] = {kind: [] for kind in COPIES}
    for i in range(len(shards)):
        entry = shards.entry(i)
        for name, volume in intensities(shards, i).items():
            mine = signature(volume, (1.0, 1.0, 1.0))
            if not mine.any():
                print(f"{entry.key}, {name}: shows too little for a signature")
                continue
            scans.append((entry.key, entry.subject, name, mine))
            for kind, spacing in COPIES.items():
                copies[kind].append(likeness(mine, signature(changed(volume, spacing), spacing)))
    persons, sessions = [], []
    for a, b in itertools.combinations(scans, 2):
        if a[2] == b[2] and a[0] != b[0]:
            (sessions if a[1] == b[1] else persons).append(likeness(a[3], b[3]))
    return {
        "scans": len(scans),
        "threshold": THRESHOLD,
        "least_of_copies": {kind: round(min(found), 3) for kind, found in copies.items()},
        "missed_copies": {k: sum(s < THRESHOLD for s in found) for k, found in copies.items()},
        "greatest_of_two_sessions": round(max(sessions, default=-1.0), 3),
        "greatest_of_two_persons": round(max(persons, default=-1.0), 3),
        "pairs": {"sessions": len(sessions), "persons": len(persons)},
    }


def main(sources: list[Path]) -> None:
    """Build, measure, write."""
    if not sources:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "set"
        build_shards(sources, out, BuildConfig(keep_ids=True, workers=2))
        result = measure(ShardSet.open(out))
    write_json(RESULT, {**result, "machine": machine()})
    print(RESULT.read_text())


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
