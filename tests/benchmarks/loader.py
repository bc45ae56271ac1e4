"""How fast studies are read, from disk and by ranges, and how far index and memory reach.

    python tests/benchmarks/loader.py CASES [crops] [ranges] [index] [memory]

CASES are folders of 1 mm NIfTI cases with four sequences. Writes the sections named, all by
default, to tests/benchmarks/results/loader.json beside machine and versions. Run it on a quiet
machine: every figure is of one core, and other work on the machine makes it smaller.
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from range_server import serve

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.index import INDEX, Index
from gliomoe.data_shards.format.record import EncodedStudy, encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.order import Mixture, Order, study_at
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.reader import IndexedReader, OrderConfig
from gliomoe.data_shards.study import Study
from gliomoe.launch.bench.loader import LoaderBench, measure_loader
from gliomoe.launch.runs import machine
from gliomoe.pretrain.samples.views import StudyViews
from gliomoe.pretrain.sections import ViewConfig

RESULT = Path(__file__).parent / "results/loader.json"
SIDE, SHIFT = 96, 32
COPIES = 16
"""Times that every case is in the set that is read by ranges, so that caches do not hold it."""
TURNS = 3
STUDIES = 1_000_000
SAMPLES = 100_000


def copies(cases: Path, folder: Path) -> Path:
    """A shard set with every case many times."""
    build_shards([cases], folder / "once", BuildConfig(keep_ids=True))
    once = ShardSet.open(folder / "once")
    studies = []
    for copy in range(COPIES):
        for i in range(len(once)):
            stored = once.study(i)
            key = f"{copy:03d}-{stored.record['key']}"
            text = bytes(stored.members["json"]).replace(
                f'"key":"{stored.record["key"]}"'.encode(), f'"key":"{key}"'.encode()
            )
            members = {**{n: bytes(c) for n, c in stored.members.items()}, "json": text}
            studies.append(EncodedStudy(key, tuple((f"{key}.{n}", c) for n, c in members.items())))
    shards = list(write_shards(folder / "many", studies, 256_000_000))
    seal(folder / "many", shards, once.info["preprocess"])
    return folder / "many"


def rate(place: str) -> float:
    """Crops per second over one epoch in blocks of neighbours, every byte asked for once."""
    shards = ShardSet.open(place)
    reader = IndexedReader(shards, OrderConfig(block=8, window=16), 0)
    views = StudyViews(reader, ViewConfig(SIDE, SHIFT), AugmentConfig(), 8, 0)
    begun, crops = time.perf_counter(), 0
    for n in range(len(shards)):
        crops += 2 * len(views._read_box(n, reader.study(n)).codes)
    return crops / (time.perf_counter() - begun)


def ranges(cases: Path, folder: Path) -> dict:
    """Local files against ranges of a server on this machine, in turns."""
    torch.set_num_threads(1)
    many = copies(cases, folder)
    turns: dict[str, list[float]] = {"local": [], "http": []}
    with serve(many) as url:
        for _ in range(TURNS):
            turns["local"].append(rate(str(many)))
            turns["http"].append(rate(url))
    found = {name: {"crops_per_s": statistics.median(rates)} for name, rates in turns.items()}
    share = found["http"]["crops_per_s"] / found["local"]["crops_per_s"]
    return {**found, "share_of_local": share, "turns": turns}


def index(cases: Path, folder: Path) -> dict:
    """An index of a million studies: open it and find a study; orders over it."""
    path = folder / INDEX
    rows = np.zeros(STUDIES, _row_type(folder))
    rows["key"] = [f"{i:032x}" for i in range(STUDIES)]
    np.save(path, rows)
    begun = time.perf_counter()
    opened = Index.open(path)
    entry = opened.entry(opened.position(f"{STUDIES // 3:032x}"))
    seconds = time.perf_counter() - begun
    assert int(entry.key, 16) == STUDIES // 3
    order = Order(STUDIES, 0, block=32, window=512, lanes=16)
    mixture = Mixture((3, 1), 0)
    return {
        "studies": STUDIES,
        "bytes": path.stat().st_size,
        "open_and_find_s": seconds,
        "order_us": {
            "full": _microseconds(lambda n: study_at(n, STUDIES, 0)),
            "blocks": _microseconds(order.study),
            "mixture": _microseconds(mixture.draw),
        },
    }


def _row_type(folder: Path) -> np.dtype:
    """The rows of an index, from a set of one study."""
    rng = np.random.default_rng(0)
    study = Study("a", "a", {"t1": rng.random((8, 8, 8), np.float32) + 1}, np.eye(4))
    study = replace(study, fingerprint="0" * 32)
    shards = list(write_shards(folder / "one", [encode_study(study)], 1))
    seal(folder / "one", shards, {})
    return np.load(folder / "one" / INDEX).dtype


def _microseconds(look_up) -> float:
    """Time of one look-up, spread over the numbers as a run spreads them."""
    numbers = range(0, 20_000_000, 101)
    begun = time.perf_counter()
    for n in numbers:
        look_up(n)
    return (time.perf_counter() - begun) / len(numbers) * 1e6


def memory(cases: Path, folder: Path) -> dict:
    """Memory of a reading process over many samples."""
    rng = np.random.default_rng(0)
    studies = []
    for number in range(64):
        volumes = {
            name: (rng.random((40, 40, 40)) + 0.1).astype(np.float32)
            for name in ("t1", "t1ce", "t2", "flair")
        }
        studies.append(Study(f"{number:03d}", "a", volumes, np.eye(4), fingerprint="0" * 32))
    shards = list(write_shards(folder / "small", map(encode_study, studies), 1_000_000))
    seal(folder / "small", shards, {})
    queue = multiprocessing.get_context("fork").SimpleQueue()
    reader = multiprocessing.get_context("fork").Process(
        target=_read_many, args=(folder / "small", queue)
    )
    reader.start()
    result = queue.get()
    reader.join()
    return result


def _read_many(place: Path, queue: multiprocessing.SimpleQueue) -> None:
    """Read many samples and tell how memory grew."""
    torch.set_num_threads(1)
    reader = IndexedReader(ShardSet.open(place), OrderConfig(), 0)
    views = StudyViews(reader, ViewConfig(32, 8), AugmentConfig(), 8, 0)
    process, seen = psutil.Process(), {}
    for n in range(SAMPLES):
        assert views[n].box.codes.size
        if n + 1 in (1_000, SAMPLES // 2, SAMPLES):
            seen[str(n + 1)] = process.memory_full_info().uss / 1e6
    queue.put({"samples": SAMPLES, "own_memory_mb_after": seen})


def crops(cases: Path, folder: Path) -> dict:
    """Crops per second, beside other libraries."""
    found = measure_loader(cases, LoaderBench(size=SIDE, shift=SHIFT))
    found.pop("machine")
    return found


SECTIONS = {"crops": crops, "ranges": ranges, "index": index, "memory": memory}


def main(cases: Path, names: list[str]) -> None:
    """Measure sections, all by default, and write them beside those that are there."""
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name in names or SECTIONS:
        with tempfile.TemporaryDirectory() as scratch:
            result[name] = SECTIONS[name](cases, Path(scratch))
        write_json(RESULT, {**result, "machine": machine()})
    print(RESULT.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
