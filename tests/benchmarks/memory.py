"""Memory of a long pretraining run on more data than it may keep: does it stay flat?

    python tests/benchmarks/memory.py [--steps N] [--limit-gb G] [--work FOLDER]

Makes a shard set half as large again as the limit (studies of four sequences of noise, written
once, then copied, so that their pages are many), and runs `gliomoe pretrain` on it, a tiny network
on views of 16³, in a control group of that much memory, or, where none can be made, with
RLIMIT_DATA for each process. Every few seconds the memory of all processes of the run is summed:
proportional set size of what is anonymous or shared (`/proc/PID/smaps_rollup`), without mapped
files, which the kernel can drop at any time. Growth is a straight line fitted to the second half of
the steps.

Twenty thousand steps take an hour on a quiet machine. With `--work` the folder is kept, and
the same command goes on with a run that was broken off; the curve is then that of the last process.
Writes tests/benchmarks/results/memory.json, if at least 10,000 steps were measured.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.study import Study
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results/memory.json"
SEQUENCES = ("t1", "t1ce", "t2", "flair")
SIDE = 96
STUDIES = 48
GB = 10**9
LEAST = 10_000
GROUPS = (
    (Path("/sys/fs/cgroup/cgroup.controllers"), Path("/sys/fs/cgroup"), "memory.max"),
    (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
)
"""What tells that control groups of version 2 or 1 are there, where groups are made, the limit."""


def noise_study(number: int) -> Study:
    """A study that hardly compresses."""
    rng = np.random.default_rng(number)
    return Study(
        key=f"noise-{number:03d}",
        subject=f"noise-{number:03d}",
        volumes={
            name: rng.integers(1, 30_000, (SIDE,) * 3).astype(np.float32) for name in SEQUENCES
        },
        affine=np.diag([3.0, 3.0, 3.0, 1.0]),
        fingerprint=f"{number + 1:032x}",
        layout="synthetic",
    )


def make_sets(folder: Path, total: int) -> list[Path]:
    """Copies of a shard set, so many that they have `total` bytes; kept if they are there.

    None of it is left in the page cache.
    """
    first = folder / "set-000"
    if not (first / "dataset.json").is_file():
        studies = tqdm(map(noise_study, range(STUDIES)), "studies", STUDIES, disable=None)
        encoded = (encode_study(study) for study in studies)
        seal(first, list(write_shards(first, encoded, GB // 4)), {"spacing": 3.0})
    size = sum(path.stat().st_size for path in first.iterdir())
    sets = [folder / f"set-{n:03d}" for n in range(-(-total // size))]
    for copy in tqdm(sets[1:], "copies", disable=None):
        if not copy.is_dir():
            shutil.copytree(first, copy.with_suffix(".partial"), dirs_exist_ok=True)
            copy.with_suffix(".partial").rename(copy)
    for path in (path for place in sets for path in place.iterdir()):
        with path.open("rb") as file:  # pages in memory already would not count for the run
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return sets


@contextmanager
def limited(limit: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """How memory is limited, and what a child process does to be under the limit."""
    for sign, root, file in GROUPS:
        group = root / f"gliomoe-{os.getpid()}"
        if not (sign.exists() and os.access(root, os.W_OK)):
            continue
        group.mkdir()
        try:
            (group / file).write_text(str(limit))
            yield f"control group, {file}, page cache within it", partial(join, group)
        finally:
            group.rmdir()
        return
    below = partial(resource.setrlimit, resource.RLIMIT_DATA, (limit, limit))
    yield "RLIMIT_DATA of each process", below


def join(group: Path) -> None:
    """Put this process into a control group."""
    (group / "cgroup.procs").write_text(str(os.getpid()))


def memory_of(process: psutil.Process) -> dict[str, float]:
    """Megabytes of a process and its descendants, by kind."""
    kinds = {"Pss_Anon": "anonymous", "Pss_Shmem": "shared", "Pss_File": "files"}
    found = dict.fromkeys(kinds.values(), 0.0)
    for member in (process, *process.children(recursive=True)):
        try:
            lines = Path(f"/proc/{member.pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has just ended
            continue
        table = {name: value for name, _, value in (line.partition(":") for line in lines)}
        for key, name in kinds.items():
            found[name] += int(table[key].split()[0]) * 1024 / 10**6
    return found


def steps_done(run: Path) -> int:
    """Lines of the trace."""
    trace = run / "metrics.jsonl"
    return sum(1 for _ in trace.open()) if trace.is_file() else 0


def watch(
    command: list[str], run: Path, steps: int, prepare: Callable[[], None]
) -> list[dict[str, float]]:
    """Run a command to its end; its memory over the steps."""
    curve = []
    child = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=prepare
    )
    try:
        with tqdm(desc="memory", total=steps, unit="step", disable=None) as bar:
            while child.poll() is None:
                time.sleep(max(1.0, steps / 4000))
                done = steps_done(run)
                bar.update(done - bar.n)
                if 0 < done < steps:  # neither starting nor ending
                    curve.append({"step": done, **memory_of(psutil.Process(child.pid))})
        if code := child.wait():
            raise SystemExit(f"the run ended with {code}; the same command continues")
    finally:
        child.kill()
        child.wait()
    return curve


def summary(curve: list[dict[str, float]]) -> dict[str, Any]:
    """Growth and peak; memory that counts is anonymous or shared."""
    step = np.array([sample["step"] for sample in curve])
    megabytes = np.array([sample["anonymous"] + sample["shared"] for sample in curve])
    late = step >= (step[0] + step[-1]) / 2
    slope = np.polyfit(step[late], megabytes[late], 1)[0]
    return {
        "steps": [int(step[0]), int(step[-1])],
        "peak_mb": round(float(megabytes.max()), 1),
        "growth_mb_per_1000_steps": round(float(1000 * slope), 3),
        "curve": [
            {key: round(value, 1) for key, value in sample.items()}
            for sample in curve[:: max(1, len(curve) // 200)]
        ],
    }


def measure(steps: int, limit: int, folder: Path) -> dict[str, Any]:
    """Make the data and run."""
    sets = make_sets(folder, limit * 3 // 2)
    run = folder / "run"
    command = [
        sys.executable, "-m", "gliomoe", "pretrain", "smoke", "--data.train", *map(str, sets),
        "--run.out", str(run), "--run.steps", str(steps), "--optim.batch", "2",
        "--run.checkpoint_every", str(max(1, steps // 20)),
        "--monitor.log_every", "50", "--monitor.pictures_every", str(max(1, steps // 10)),
    ]  # fmt: skip
    with limited(limit) as (how, prepare):
        curve = watch(command, run, steps, prepare)
    sizes = [path.stat().st_size for place in sets for path in place.glob("*.tar")]
    return {
        "setup": {
            "limit_gb": limit / GB,
            "limited_by": how,
            "data_gb": round(sum(sizes) / GB, 2),
            "studies": STUDIES * len(sets),
            "preset": "smoke, batch 2",
            "memory": "proportional set size of all processes, anonymous and shared",
        },
        **summary(curve),
        "machine": machine(),
    }


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--limit-gb", type=float, default=4.0)
    parser.add_argument("--work", type=Path, help="folder for data and run; kept")
    options = parser.parse_args()
    limit = int(options.limit_gb * GB)
    if options.work:
        result = measure(options.steps, limit, options.work)
    else:
        with tempfile.TemporaryDirectory(prefix="gliomoe-") as scratch:
            result = measure(options.steps, limit, Path(scratch))
    first, last = result["steps"]
    if last - first >= LEAST:
        write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
