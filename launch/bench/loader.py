"""How many crops a second one core reads, beside other libraries on the same cases.

The work of every arm is a pair of crops of all sequences of a case. Ours is read as pretraining
reads it: overlapping crops out of one box, int16, which the training device normalises. Variants
give normalised float32 on the core that reads. Arms take turns, so that a machine that slows down
slows all of them.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.reading.codes import collate_codes
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.bench import peers
from gliomoe.launch.runs import machine

Files = dict[str, Path]
"""Sequence → file of one case."""

Arm = Callable[[np.random.Generator], int]
"""Reads the pair of one case and returns how many crops that were."""


@dataclass(frozen=True)
class LoaderBench:
    """What is measured."""

    size: int = 96
    """Side of a crop, voxels."""
    shift: int = 32
    """Voxels that the two crops of a pair may lie apart along each axis."""
    seconds: float = 4.0
    """How long an arm reads in one turn."""
    turns: int = 5
    """Turns of every arm."""
    cases: int = 3
    """Cases to simulate where none are given."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if min(self.size, self.turns, self.cases) < 1 or self.shift < 0 or not self.seconds > 0:
            raise ValueError("size, turns, cases and seconds must be positive")


def measure_loader(source: Path | None, settings: LoaderBench) -> dict[str, Any]:
    """Crops per second of each arm.

    Args:
        source: Cases in any layout with NIfTI files; None simulates some at 1 mm.
        settings: What is measured.

    Returns:
        `ours`, `peers` and `variants`, each with `crops_per_s` (median of the turns), `setup`
        (sizes on disk) and `machine`.

    Raises:
        UsageError: If no case is large enough for the crops.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gliomoe-bench-")))
        threads = torch.get_num_threads()
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        if source is None:
            source = scratch / "phantoms"
            write_cohort(source, CohortConfig(subjects=settings.cases, spacing=1.0))
        cases = _cases(source, settings.size)
        build_shards([source], scratch / "shards", BuildConfig(keep_ids=True))
        shards = ShardSet.open(scratch / "shards")
        variants = {
            "float32": _pairs(shards, settings, normalised=True),
            "float32_independent": _apart(shards, settings),
        }
        others = peers.arms(cases, settings.size, scratch)
        arms = {"ours": _pairs(shards, settings), **variants, **others}
        rates = _take_turns(arms, settings)
        return {
            "ours": rates["ours"],
            "peers": {name: rates[name] for name in others},
            "variants": {name: rates[name] for name in variants},
            "setup": {
                "cases": len(cases),
                "sequences": [len(case) for case in cases],
                "shard_bytes": sum(shard["bytes"] for shard in shards.info["shards"]),
                "nifti_bytes": sum(path.stat().st_size for c in cases for path in c.values()),
                "size": settings.size,
                "seconds": settings.seconds,
            },
            "machine": machine(),
        }


def _cases(source: Path, size: int) -> list[Files]:
    """The cases of a source whose files are read."""
    found = []
    for raw in find_studies(source):
        files = {name: path for name, path in raw.series.items() if isinstance(path, Path)}
        if files and len(files) == len(raw.series):
            found.append(files)
    cases = [
        case
        for case in found
        if min(n for path in case.values() for n in peers.nibabel_shape(path)) >= size
    ]
    if not cases:
        raise UsageError(f"{source}: no case of NIfTI files with {size} voxels along every axis")
    return cases


def _pairs(shards: ShardSet, settings: LoaderBench, normalised: bool = False) -> Arm:
    """Both crops from one box, which begins at a block of the shard."""
    from gliomoe.pretrain.samples.views import box_step

    side, step = settings.size + settings.shift, box_step(settings.shift)

    def read(rng: np.random.Generator) -> int:
        study = shards.study(int(rng.integers(len(shards))))
        start = [
            step * int(rng.integers(0, max(0, -(-(n - side) // step)) + 1))
            for n in study.record["shape"]
        ]
        size = (side,) * 3
        box = study.codes(start, size)
        voxels = collate_codes([box]).decode().voxels[:, 0] if normalised else box.codes
        for _ in range(2):
            a, b, c = rng.integers(0, settings.shift + 1, 3).tolist()
            crop = voxels[:, a : a + settings.size, b : b + settings.size, c : c + settings.size]
            assert crop.shape[1:] == (settings.size,) * 3
        return 2 * len(voxels)

    return read


def _apart(shards: ShardSet, settings: LoaderBench) -> Arm:
    """Two crops that have nothing to do with each other or with blocks."""

    def read(rng: np.random.Generator) -> int:
        study = shards.study(int(rng.integers(len(shards))))
        crops = 0
        for _ in range(2):
            start = [
                int(rng.integers(0, max(0, n - settings.size) + 1)) for n in study.record["shape"]
            ]
            crops += len(study.read(start, (settings.size,) * 3, seg=False).voxels)
        return crops

    return read


def _take_turns(arms: Mapping[str, Arm], settings: LoaderBench) -> dict[str, dict[str, Any]]:
    """Median crops per second of every arm, after one reading that is not counted."""
    turns: dict[str, list[float]] = {name: [] for name in arms}
    for read in arms.values():
        read(np.random.default_rng(0))
    bar = tqdm(total=settings.turns * len(arms), desc="bench", unit="turn", disable=None)
    for turn in range(settings.turns):
        for name, read in arms.items():
            turns[name].append(_rate(read, np.random.default_rng(turn), settings.seconds))
            bar.update()
    bar.close()
    return {
        name: {"crops_per_s": round(statistics.median(rates), 2), "turns": _rounded(rates)}
        for name, rates in turns.items()
    }


def _rate(read: Arm, rng: np.random.Generator, seconds: float) -> float:
    """Crops per second over at least so many seconds."""
    begun, crops = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        crops += read(rng)
    return crops / spent


def _rounded(rates: list[float]) -> list[float]:
    """Rates as they are shown."""
    return [round(rate, 2) for rate in rates]
