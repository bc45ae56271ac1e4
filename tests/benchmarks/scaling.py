"""Step times of pretraining on the CPU: predicted, scaled from one to two processes, taken apart.

    python tests/benchmarks/scaling.py [--quick] [--turns N] [--steps N]

- prediction: the cost model is fitted to steps of two batches and predicts a third and a larger
  view; the error is a part of what was measured.
- ranks: the same work for each process, one process on one core, then two on two.
- wait: share of a step that waits for data, the tiny model at quickstart's size and at 1 mm.
- profile: where the rest of such a step goes.

Each run is a process of its own, with one thread a rank; arms take turns. Studies are simulated.
Writes tests/benchmarks/results/scaling.json; with `--quick` all is short, proves nothing, and is
only printed. Needs two cores and a quiet machine.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.launch.options import parse, read_preset
from gliomoe.launch.runs import machine
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.cost import training_flops
from gliomoe.pretrain.planning.measured import fit_line
from gliomoe.pretrain.planning.work import count_work

RESULT = Path(__file__).parent / "results/scaling.json"
WARM_UP = 2
TIMEOUT = 900
SUBJECTS = {3.5: 16, 1.0: 4}
"""Spacing in mm → subjects to simulate."""
QUICK = {3.5: 2, 1.0: 1}


def configure(preset: str, *options: str) -> PretrainConfig:
    """A preset without what is not a step: pictures, checkpoints."""
    quiet = ("--monitor.pictures-every", "0", "--run.checkpoint-every", "1000000")
    table, source = read_preset(preset, "gliomoe.pretrain")
    return parse(PretrainConfig, [*quiet, *options], "scaling", "", table, source)


def child(arguments: list[str]) -> None:
    """Train and print what each step took, on rank 0."""
    from gliomoe.pretrain import step as steps
    from gliomoe.pretrain.engine.engine import Engine
    from gliomoe.pretrain.monitoring.monitor import Monitor
    from gliomoe.pretrain.train import pretrain

    config = configure(*arguments)
    reports: list[dict[str, Any]] = []
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            result = whole(*args, **kwargs)
            spent[name] += time.perf_counter() - begun
            return result

        return call

    def show(self: Monitor, report: Any) -> None:
        parts = {"data": report.waited, **spent}
        reports.append({"seconds": report.seconds, "parts": parts})
        spent.clear()

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Monitor, "show", show))
        for place, name in ((steps, "make_views"), *((Engine, n) for n in ENGINE)):
            wrapped = timed(name, getattr(place, name))
            stack.enter_context(mock.patch.object(place, name, wrapped))
        pretrain(config)
    if os.environ["RANK"] == "0":
        print(json.dumps(reports[WARM_UP:]))


ENGINE = ("forward", "backward", "step")


def train(ranks: int, *arguments: str) -> list[dict[str, Any]]:
    """Steps of a run of so many processes, each on a core of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="gliomoe-scaling-") as out:
        command = [sys.executable, __file__, "--child", *arguments, "--run.out", out]
        running = [
            subprocess.Popen(
                ["taskset", "-c", str(rank), *command],
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
                | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        try:
            said = [process.communicate(timeout=TIMEOUT) for process in running]
        finally:
            for process in running:
                process.kill()
        if any(process.returncode for process in running):
            raise SystemExit(said[0][1])
        return json.loads(said[0][0].splitlines()[-1])


def take_turns(arms: dict[str, tuple[Any, ...]], turns: int) -> dict[str, list[dict[str, Any]]]:
    """All steps of each arm, the arms one after the other, several times."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for turn in range(turns):
        for name, arm in arms.items():
            print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr)
            found[name] += train(*arm)
    return found


def seconds(steps: list[dict[str, Any]]) -> float:
    """Median of what a step took."""
    return statistics.median(step["seconds"] for step in steps)


def shares(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Part of the time that each part of a step took, `rest` included."""
    total = sum(step["seconds"] for step in steps)
    names = ("data", "make_views", *ENGINE)
    found = {name: sum(step["parts"][name] for step in steps) / total for name in names}
    return {**{k: round(v, 4) for k, v in found.items()}, "rest": round(1 - sum(found.values()), 4)}


def predict(coarse: str, counts: list[str], turns: int) -> dict[str, Any]:
    """Fit two batches, predict a third and a larger view."""
    given = ("quickstart", "--data.train", coarse, *counts)
    arms = {f"batch {batch}": (*given, "--optim.batch", str(batch)) for batch in (4, 8, 16)}
    arms["size 56"] = (*given, "--optim.batch", "4", "--views.size", "56")
    measured = take_turns({name: (1, *arm) for name, arm in arms.items()}, turns)
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        config = configure(*arm, "--run.out", "none")
        flops = training_flops(count_work(config, "fp32"), config, config.optim.batch)
        found[name] = {"flops": flops, "step_s": seconds(measured[name])}
    points = [found["batch 4"], found["batch 8"]]
    rate, overhead = fit_line([(point["flops"], point["step_s"]) for point in points])
    for name in ("batch 16", "size 56"):
        expected = overhead + found[name]["flops"] / rate
        found[name]["predicted_s"] = expected
        found[name]["error"] = round(expected / found[name]["step_s"] - 1, 4)
    return {"points": points, "flops_per_s": rate, "overhead_s": overhead, "arms": found}


def measure(turns: int, steps: int, subjects: dict[float, int]) -> dict[str, Any]:
    """All figures."""
    counts = ["--run.steps", str(steps + WARM_UP), "--optim.warmup", "1"]
    with tempfile.TemporaryDirectory(prefix="gliomoe-scaling-") as scratch:
        places = {}
        for spacing, count in subjects.items():
            cohort, places[spacing] = Path(scratch, f"c{spacing}"), Path(scratch, f"s{spacing}")
            write_cohort(cohort, CohortConfig(subjects=count, spacing=spacing))
            build_shards([cohort], places[spacing], BuildConfig(keep_ids=True))
        coarse, fine = str(places[3.5]), str(places[1.0])
        prediction = predict(coarse, counts, turns)
        given = ("quickstart", "--data.train", coarse, *counts, "--optim.batch")
        ranks = take_turns({"1": (1, *given, "4"), "2": (2, *given, "8")}, turns)
        tiny = ("gliomoe_tiny", "--data.train", fine, *counts, "--optim.batch", "2")
        sizes = {"quickstart": (1, *given, "8"), "gliomoe_tiny at 1 mm": (1, *tiny)}
        waits = take_turns(sizes, turns)
    one, two = seconds(ranks["1"]), seconds(ranks["2"])
    return {
        **{"points": prediction.pop("points"), "prediction": prediction},
        "ranks": {"1_s": one, "2_s": two, "efficiency": round(one / two, 4)},
        "steps": {
            name: {"step_s": seconds(found), "shares": shares(found)}
            for name, found in waits.items()
        },
        "setup": {"turns": turns, "steps": steps, "threads": 1, "dtype": "float32"},
        "machine": machine(),
    }


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short, nothing written")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="in each turn")
    options = parser.parse_args()
    full = (options.turns, options.steps, SUBJECTS)
    result = measure(*((1, 3, QUICK) if options.quick else full))
    if not options.quick:
        write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
