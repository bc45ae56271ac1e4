"""Models as the arms of a study, with their sizes and the time that a case takes them."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.finetune.cases import known_tasks, labelled_cases
from gliomoe.finetune.config import SCRATCH, TASKS
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.report.evaluations import aligned
from gliomoe.finetune.run import FinetunedRun
from gliomoe.launch.studies.arms import Arm, read_arms
from gliomoe.launch.studies.config import StudyConfig, merged, recipe
from gliomoe.launch.studies.grid import Cell, Grid
from gliomoe.models.checkpoint import read_config
from gliomoe.models.hub import fetch
from gliomoe.models.registry import entry, parameter_counts

REPEATS = 3
"""Predictions of a case of which the median time is taken, after one that is not counted."""


def read_models(config: StudyConfig, texts: tuple[str, ...], settings: Path | None) -> list[Arm]:
    """Models from the command line, each with those of the protocol's tasks that it has.

    Args:
        config: The study's options.
        texts: `NAME` from scratch, or `LABEL=CHECKPOINT`.
        settings: TOML file with changes to the fine-tuning of some.

    Raises:
        UsageError: If one cannot be read, or has none of the tasks.
        ModelError: If a name is unknown.
    """
    wanted = recipe(config.finetune, "gliomoe.finetune", "finetune").get("tasks", TASKS)
    arms = []
    for arm in read_arms([t if "=" in t else f"{t}={SCRATCH}" for t in texts], settings, "models"):
        name = arm.name
        if arm.source != SCRATCH:
            name = read_config(fetch(arm.source))["model"]["name"]
        own = {"model": name, "tasks": [t for t in wanted if t in entry(name).tasks]}
        if not own["tasks"]:
            raise UsageError(f"--models {arm.name}: has none of the tasks {', '.join(wanted)}")
        arms.append(Arm(arm.name, arm.source, merged(own, arm.settings)))
    return arms


def describe(grid: Grid, arm: str) -> dict[str, float]:
    """Parameters of a model with its heads, and seconds to predict the first test case.

    Measured once; `OUT/models/<arm>.json` keeps it.
    """
    path = grid.out / "models" / f"{arm}.json"
    if not path.is_file():
        run = FinetunedRun.open(grid.options(Cell(arm, grid.shots[0], 0)).out)
        total, active = parameter_counts(run.models()[0])
        sizes = {"parameters_total": total, "parameters_active": active}
        write_json(path, {**sizes, "seconds_per_case": _seconds(grid, arm, run)})
    found: dict[str, float] = json.loads(path.read_text("utf-8"))
    return found


def sizes_table(sizes: Mapping[str, Mapping[str, float]]) -> str:
    """Sizes and times for a terminal."""
    rows = [
        [
            arm,
            f"{found['parameters_total'] / 1e6:.1f} M",
            f"{found['parameters_active'] / 1e6:.1f} M",
            f"{found['seconds_per_case']:.2f} s",
        ]
        for arm, found in sizes.items()
    ]
    return "\n".join(aligned([["model", "parameters", "active", "a case"], *rows]))


def _seconds(grid: Grid, arm: str, run: FinetunedRun) -> float:
    """Median time to predict the first case of the first cohort."""
    options, cohort = grid.arms[arm], grid.cohorts[0]
    preprocess = PreprocessConfig.from_json(run.preprocessing)
    build = BuildConfig(keep_ids=True, preprocess=preprocess)
    shards = open_or_build(cohort.data, options.cache or options.out, build)
    tasks = [task for task in run.tasks if task in known_tasks(shards, cohort.labels)]
    case = labelled_cases(shards, cohort.labels, tasks)[:1]
    models = run.models(pick_device(options.train.device))
    sample = read_case(shards, with_inputs(models[0], shards, case, cohort.genes)[0])
    times = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        predict_study(models, sample, run.inference)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return median(times[1:])
