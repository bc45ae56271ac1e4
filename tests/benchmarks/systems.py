"""Every registered system through `gliomoe finetune` and `gliomoe evaluate`.

    python tests/benchmarks/systems.py WORK [--models PATTERN] [--real DATA]

Simulated: one of five folds of 20 phantoms at 3.5 mm, by the paper's recipe where the system has
one, evaluated on 12 others, all of it twice with one seed. Real, with DATA the folder `brats` of
GLIOMOE_TEST_DATA: all five folds of its 7 cases, the regions alone, each case measured with the
fold that did not train on it and whose last epoch counts, so that nothing is chosen by the case.
Both are cut short for a CPU, the large systems most: a row shows that a system runs and repeats,
and what it costs, not how good it is. Seconds are of a machine that may do other work too. Figures
alone are kept, WORK holds the runs. Writes tests/benchmarks/results/systems.json after each system;
with the same WORK it continues, and rows that are there are not measured again.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import Cost, FailedError, flags
from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.labels import REGIONS
from gliomoe.finetune.metrics.intervals import bootstrap_mean
from gliomoe.launch.runs import machine
from gliomoe.models import create_model, list_models
from gliomoe.models.errors import ModelError
from gliomoe.models.registry import parameter_counts

RESULT = Path(__file__).parent / "results/systems.json"
FOLDS = 5
WINDOW = (48, 56, 48)
"""Voxels at 3.5 mm: a whole phantom."""
LIGHT = ("gliomoe_tiny", "gliomoe_small", "magpie_mednext_s", "magpie_unet_b", "attention_unet",
         "mdl_ca")  # fmt: skip
"""Systems that a CPU trains in seconds a step."""


def preset(system: str) -> str:
    """The recipe of a system."""
    families = {"gliomoe": "gliomoe_20shot", "magpie": "magpie_20shot"}
    return families.get(system.partition("_")[0], system)


def length(system: str) -> dict[str, Any]:
    """How long a system trains, and on how many crops in a step."""
    if system in LIGHT:
        return {"train.epochs": 2, "train.steps-per-epoch": 8, "train.batch": 2}
    return {"train.epochs": 1, "train.steps-per-epoch": 2, "train.batch": 1}


def cohorts(work: Path) -> tuple[Path, Path]:
    """Phantoms to train on and to test on."""
    folders = []
    for name, subjects, seed in (("train_a", 20, 2), ("test_a", 12, 3)):
        folder = work / "cohorts" / name
        options = {"subjects": subjects, "protocol": "A", "seed": seed, "spacing": 3.5}
        Cost().gliomoe("phantom", folder, *flags(options))
        folders.append(folder)
    return folders[0], folders[1]


def simulated(system: str, work: Path) -> dict[str, Any]:
    """The row of a system on phantoms."""
    train, test = cohorts(work)
    changed = {
        "shots": 20,
        "folds": FOLDS,
        "only-folds": 0,
        "arch.spacing": 3.5,
        "crop.size": " ".join(map(str, WINDOW)),
        **length(system),
    }
    changed["train.validate-every"] = changed["train.epochs"]
    needs_genes = bool(create_model(system).genes)
    cost, found = Cost(), []
    for run in ("first", "again"):
        out = work / "phantom" / system / run
        shutil.rmtree(out, ignore_errors=True)
        inputs = [
            [
                *("--data", cohort, "--labels", cohort / "participants.tsv"),
                *("--cache", work / "shards"),
                *(["--genes", cohort / "phenotype/genes.tsv"] if needs_genes else []),
            ]
            for cohort in (train, test)
        ]
        call = ("finetune", preset(system), "--model", system, "--out", out / "run")
        cost.gliomoe(*call, *inputs[0], *flags(changed))
        cost.gliomoe("evaluate", out / "run", "--out", out / "figures", *inputs[1])
        found.append(json.loads((out / "figures/metrics.json").read_text()))
    metrics = found[0]
    return {
        "preset": preset(system),
        "changed": changed,
        "parameters": parameters(work / "phantom" / system / "first/run/fold_0"),
        **costs(cost, 2),
        "machine": machine(),
        "dice": {region: each["dice"] for region, each in metrics["regions"].items()},
        "auc": {
            task: each["macro_auc" if task == "grade" else "auc"]
            for task, each in metrics["markers"].items()
        },
        "two_runs_equal": without_paths(found[0]) == without_paths(found[1]),
    }


def real(system: str, data: Path, work: Path) -> dict[str, Any]:
    """The row of a system on real cases: every case by the fold that did not train on it.

    Raises:
        ModelError: If it does not segment; the cases have no markers.
    """
    with torch.device("meta"):
        create_model(system, ("seg",))
    count = sum(path.is_dir() for path in data.iterdir())
    changed = {
        "tasks": "seg",
        "shots": count,
        "folds": FOLDS,
        "arch.spacing": 3.5,
        "crop.size": " ".join(map(str, WINDOW)),
        **length(system),
    }
    changed["train.validate-every"] = changed["train.epochs"]
    cost, out = Cost(), work / "real" / system
    shutil.rmtree(out, ignore_errors=True)
    inputs = ("--data", data, "--cache", work / "shards")
    call = ("finetune", preset(system), "--model", system, "--out", out / "run")
    cost.gliomoe(*call, *inputs, *flags(changed))
    for fold in range(FOLDS):
        call = ("evaluate", out / f"run/fold_{fold}", "--out", out / f"fold_{fold}")
        cost.gliomoe(*call, *inputs, "--allow-leakage", True)
    found = held_out(out)
    regions = {
        region: {
            "dice": {
                "mean": float(np.mean(values)),
                "interval": bootstrap_mean(values),
            },
            "empty": {
                which: sum(row[f"{region}_empty"] == which for row in found)
                for which in ("truth", "prediction", "both")
            },
        }
        for region in REGIONS
        for values in [np.array([float(row[f"{region}_dice"]) for row in found])]
    }
    return {
        "preset": preset(system),
        "changed": changed,
        "parameters": parameters(out / "run/fold_0"),
        **costs(cost, 1),
        "machine": machine(),
        "cases": len(found),
        "regions": regions,
    }


def held_out(out: Path) -> list[dict[str, str]]:
    """The figures of each case by the fold that did not train on it."""
    rows = []
    for number, fold in enumerate(json.loads((out / "run/splits.json").read_text())["folds"]):
        with (out / f"fold_{number}/cases.csv").open() as file:
            rows += [row for row in csv.DictReader(file) if row["key"] in fold["validation"]]
    return rows


def parameters(folder: Path) -> int:
    """Parameters of a checkpoint's model."""
    model = json.loads((folder / "config.json").read_text())["model"]
    with torch.device("meta"):
        return parameter_counts(create_model(model["name"], model["tasks"], **model["overrides"]))[
            0
        ]


def costs(cost: Cost, runs: int) -> dict[str, Any]:
    """Of one of equal runs."""
    return {
        "seconds": {name: round(spent / runs, 1) for name, spent in cost.seconds.items()},
        "peak_memory_gb": cost.peak_memory_gb,
        "threads": torch.get_num_threads(),
    }


def without_paths(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A metrics.json without the folder of its run."""
    return {key: value for key, value in metrics.items() if key != "run"}


def measure(kind: str, systems: Sequence[str], options: argparse.Namespace) -> bool:
    """Add rows to the result; whether every system ran, and repeated where it ran twice."""
    well = True
    for system in tqdm(systems, desc=kind, unit="system", disable=None):
        result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        rows = result.setdefault(kind, {})
        if not {"seconds", "left out"} & set(rows.get(system, {})):
            try:
                if kind == "real":
                    rows[system] = real(system, options.real, options.work)
                else:
                    rows[system] = simulated(system, options.work)
            except FailedError as error:
                rows[system] = {"error": str(error)}
            except ModelError as error:
                rows[system] = {"left out": str(error)}
            result[kind] = {name: rows[name] for name in list_models() if name in rows}
            write_json(RESULT, result)
            print(kind, system, json.dumps(rows[system]), flush=True)
        well &= rows[system].get("two_runs_equal", "error" not in rows[system])
    return well


def main() -> int:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", default="*", metavar="PATTERN")
    parser.add_argument("--real", type=Path, metavar="DATA", help="only the real cases of DATA")
    options = parser.parse_args()
    systems = list_models(options.models)
    if not systems:
        parser.error(f"no such model; there are {', '.join(list_models())}")
    return 0 if measure("real" if options.real else "phantom", systems, options) else 1


if __name__ == "__main__":
    sys.exit(main())
