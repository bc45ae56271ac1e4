"""A report from a fine-tuned run, evaluations and predictions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import tomli_w

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import labelled_cases
from gliomoe.finetune.config import SCRATCH
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.finetune.report.collect import HeldOut, prediction_scans, validation_scan
from gliomoe.finetune.report.evaluations import Evaluation, read_evaluations
from gliomoe.finetune.report.history import read_curves
from gliomoe.finetune.report.page import Page, render
from gliomoe.finetune.report.scans import Scan
from gliomoe.finetune.run import SPLITS, FinetunedRun, training_folder
from gliomoe.finetune.splits import read_splits
from gliomoe.models.checkpoint import load_checkpoint

CAPTION = (
    "Mean over cases, with the 95 % confidence interval below it: bootstrap over cases for Dice, "
    "DeLong for AUC. With few cases the intervals are wide, and rows whose intervals overlap do "
    "not tell which one is better."
)

PHANTOM = "gliomoe phantom"
"""What phantom cohorts give as their generator."""

PHANTOM_NOTE = (
    "The cases of this run are simulated phantoms. They show that the software works; they are no "
    "evidence of how it does on patients."
)


@dataclass(frozen=True)
class ReportConfig:
    """What goes into a report."""

    run: Path
    """Folder of a fine-tuning run."""
    evaluations: tuple[Path, ...] = ()
    """Folders of `gliomoe evaluate` to compare, in this order."""
    predictions: tuple[Path, ...] = ()
    """Folders of `gliomoe predict` to show."""
    cases: int = 2
    """Validation cases to show, each predicted by the fold that did not train on it."""


def build_report(config: ReportConfig, out: Path) -> list[Evaluation]:
    """Write a report.

    Returns:
        The evaluations in it.

    Raises:
        UsageError: If a folder is not what it should be, or the run's data are gone.
    """
    run = FinetunedRun.open(config.run)
    if not run.summary:
        raise UsageError(
            f"{config.run}: one checkpoint; a report needs the folder of the whole run"
        )
    evaluations = read_evaluations(config.evaluations)
    scans = [scan for folder in config.predictions for scan in prediction_scans(folder)]
    record = json.loads((config.run / "run.json").read_text("utf-8"))
    shards = _shards(run, record["config"])
    scans += _validation_scans(run, shards, record["config"], config.cases)
    notes = [PHANTOM_NOTE] if PHANTOM in shards.info.get("generated_by", ()) else []
    page = _page(run, record, evaluations, scans, notes)
    with atomic_write(out, "w") as file:
        file.write(render(page))
    return evaluations


def _validation_scans(
    run: FinetunedRun, shards: ShardSet, settings: Mapping[str, Any], wanted: int
) -> list[Scan]:
    """The first validation case of each of the first folds, with labels before without."""
    labels = Path(settings["labels"]) if "labels" in settings else None
    cases = {case.key: case for case in labelled_cases(shards, labels, run.tasks)}
    splits = read_splits(run.path / SPLITS, list(cases.values()))
    scans = []
    for fold, folder in list(zip(run.summary["folds"], run.folders, strict=True))[:wanted]:
        keys = splits.folds[fold["fold"]].validation
        key = min(keys, key=lambda k: (cases[k].targets.get("seg") != 1, k))
        held_out = HeldOut(fold["fold"], cases[key], load_checkpoint(folder).eval())
        scans.append(validation_scan(held_out, shards, run))
    return scans


def _shards(run: FinetunedRun, settings: Mapping[str, Any]) -> ShardSet:
    """The studies that the run was trained on."""
    return open_or_build(
        Path(settings["data"]),
        Path(settings.get("cache", run.path / "shards")),
        BuildConfig(keep_ids=True, preprocess=PreprocessConfig.from_json(run.preprocessing)),
    )


def _page(
    run: FinetunedRun,
    record: Mapping[str, Any],
    evaluations: Sequence[Evaluation],
    scans: Sequence[Scan],
    notes: Sequence[str],
) -> Page:
    """Everything that the report shows."""
    summary, versions = run.summary, record["machine"]["versions"]
    folders = {
        f"fold {fold['fold'] + 1}": training_folder(run.path, fold["fold"])
        for fold in summary["folds"]
    }
    return Page(
        title=run.path.resolve().name,
        lead=_lead(summary),
        chips={
            "Model": summary["model"],
            "Start": "scratch" if summary["from"] == SCRATCH else Path(summary["from"]).name,
            "Cases": str(summary["cases"]),
            "Folds": f"{len(summary['folds'])} of {summary['folds_planned']}",
            "Report of": date.today().isoformat(),
        },
        curves=read_curves(folders),
        curves_caption="One line per fold. The weights with the best validation score are kept.",
        config=tomli_w.dumps(record["config"]),
        provenance={
            **{name: text for name, text in versions.items() if text is not None},
            "system": record["machine"]["system"],
            "processor": record["machine"]["processor"],
            "git commit": record["git"] or "none",
        },
        notes=notes,
        evaluations=evaluations,
        caption=CAPTION,
        scans=scans,
        scans_caption=(
            "Validation cases are predicted by the fold that did not train on them and come with "
            "the reference labels; predicted cases are shown on the scans as they were given."
        ),
    )


def _lead(summary: Mapping[str, Any]) -> str:
    """The run in plain words."""
    start = {
        True: "trained from scratch on",
        False: f"started from the checkpoint {Path(summary['from']).name} and adapted to",
    }[summary["from"] == SCRATCH]
    frozen = {
        "encoder": " with a frozen encoder",
        "partial": " with the first blocks of the encoder frozen",
        "lora": " by low-rank adapters of a frozen encoder",
    }.get(summary["freeze"], "")
    names = ["tumour segmentation" if t == "seg" else TASK_NAMES[t] for t in summary["tasks"]]
    text = (
        f"{summary['model']} was {start} {summary['cases']} labelled cases{frozen}, "
        f"with {summary['folds_planned']}-fold cross-validation. It learnt {_listed(names)}."
    )
    if summary["dice"]:
        found = _listed([f"{value:.2f} ({region})" for region, value in summary["dice"].items()])
        text += f" On the cases that each fold left out, mean Dice was {found}."
    return text


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
