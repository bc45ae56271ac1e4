"""What fine-tuning, evaluation and inference with gliomoe_tiny cost on this machine.

    python tests/benchmarks/finetune_speed.py WORK [--parts finetune evaluate inference] [SETTINGS]

finetune   one of five folds of 20 phantoms at 2 mm, all tasks, preset two_mm on a trunk of random
           weights; SETTINGS, as --train.epochs 8, are passed on to `gliomoe finetune`
evaluate   that fold on 100 other phantoms, with intervals
inference  `predict_study` on a case of 240×240×155 voxels of 1 mm and four sequences, its head in
           the air around it as BraTS has it, and filled with tissue throughout

The cases are made once, in WORK, and their preprocessing is not counted. Writes
tests/benchmarks/results/finetune_speed.json after each part. Run it on a quiet machine.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from commands import Cost, flags

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.finetune.config import TASKS
from gliomoe.finetune.inference import InferenceConfig, predict_study
from gliomoe.launch.runs import machine
from gliomoe.models import create_model
from gliomoe.models.selection import FOUR

RESULT = Path(__file__).parent / "results/finetune_speed.json"
PARTS = ("finetune", "evaluate", "inference")
SPACING = 2.0
GRID = (240, 240, 155)
HEAD = (70, 88, 68)
"""Half axes of an ellipsoid head, voxels of 1 mm."""


def cohort(work: Path, name: str, subjects: int, seed: int) -> list[object]:
    """Phantoms with their labels and their shards, as arguments of the command line."""
    folder, cache = work / "cohorts" / name, work / "shards"
    options = {"subjects": subjects, "protocol": "A", "seed": seed, "spacing": SPACING}
    Cost().gliomoe("phantom", folder, *flags(options))
    preprocess = PreprocessConfig(spacing=SPACING)
    open_or_build(folder, cache, BuildConfig(keep_ids=True, preprocess=preprocess))
    return ["--data", folder, "--labels", folder / "participants.tsv", "--cache", cache]


def finetuning(work: Path, settings: list[str]) -> dict[str, Any]:
    """Seconds and memory of a fold, and how well its best weights validate."""
    inputs, run = cohort(work, "train", 20, 2), work / "run"
    shutil.rmtree(run, ignore_errors=True)
    cost = Cost()
    call = ("finetune", "two_mm", "--only-folds", 0)
    cost.gliomoe(*call, "--out", run, *inputs, *settings)
    (fold,) = json.loads((run / "summary.json").read_text())["folds"]
    return {**figures(cost), "settings": settings, "validation": fold}


def evaluation(work: Path) -> dict[str, Any]:
    """Seconds and memory of the figures of 100 cases."""
    inputs, cost = cohort(work, "test", 100, 3), Cost()
    cost.gliomoe("evaluate", work / "run", "--out", work / "figures", *inputs)
    metrics = json.loads((work / "figures/metrics.json").read_text())
    return {**figures(cost), "cases": metrics["cases"], "mean_dice": metrics["mean_dice"]}


def inference() -> dict[str, Any]:
    """Seconds and memory of a case, in a process of its own."""
    cases = {}
    for name in ("head in air", "tissue throughout"):
        cost = Cost()
        seconds = json.loads(cost.python(__file__, "--case", name, name="inference"))
        cases[name] = {"seconds": seconds, "peak_memory_gb": cost.peak_memory_gb}
    return {"grid": GRID, "sequences": FOUR, "threads": torch.get_num_threads(), "cases": cases}


def predict(case: str) -> float:
    """Seconds that a case takes with a model of random weights."""
    generator = torch.Generator().manual_seed(0)
    voxels = 0.1 + torch.rand(len(FOUR), *GRID, generator=generator)
    if case == "head in air":
        axes = [torch.arange(side) - side // 2 for side in GRID]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        half = torch.tensor(HEAD).view(3, 1, 1, 1)
        voxels *= (place / half).square().sum(0) < 1
    sequence = torch.tensor([SEQUENCES.index(name) for name in FOUR])
    study = StudySample(case, voxels, sequence, torch.ones(3))
    torch.manual_seed(0)
    model = create_model("gliomoe_tiny", TASKS)
    begun = time.monotonic()
    predict_study([model], study, InferenceConfig())
    return round(time.monotonic() - begun, 1)


def figures(cost: Cost) -> dict[str, Any]:
    """What a command cost."""
    (seconds,) = cost.seconds.values()
    threads = torch.get_num_threads()
    return {"seconds": seconds, "peak_memory_gb": cost.peak_memory_gb, "threads": threads}


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options, settings = parser.parse_known_args()
    if options.case:
        print(json.dumps(predict(options.case)))
        return
    if options.work is None:
        parser.error("give a folder to work in")
    measures = {
        "finetune": lambda: finetuning(options.work, settings),
        "evaluate": lambda: evaluation(options.work),
        "inference": inference,
    }
    for part in options.parts:
        result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        result[part] = measures[part]()
        print(part, json.dumps(result[part]), flush=True)
        write_json(RESULT, {**result, "machine": machine()})


if __name__ == "__main__":
    main()
