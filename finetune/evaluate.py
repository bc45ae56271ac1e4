"""Evaluation of a fine-tuned run on labelled cases it has not seen, with error bars.

`finetune/METRICS.md` describes `metrics.json`, format 2, and the tables of cases.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.label_table import read_label_table
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import (
    LabelledCase,
    known_tasks,
    labelled_cases,
    refuse_leakage,
    write_conflicts,
)
from gliomoe.finetune.evaluation.cases import CaseResult, measure_cases, write_cases
from gliomoe.finetune.evaluation.compare import compare, correct
from gliomoe.finetune.evaluation.figures import all_figures
from gliomoe.finetune.evaluation.groups import find_groups
from gliomoe.finetune.run import FinetunedRun

log = logging.getLogger(__name__)

FORMAT = 2

CONVENTIONS = {
    "intervals": "95 %; AUC: DeLong; all else: percentile bootstrap over cases, 2000 resamples",
    "empty_masks": (
        "both masks empty: ratios 1, HD95 0; one empty: ratios 0, HD95 the image diagonal in mm"
    ),
    "nsd": "MONAI surface Dice at 1 and 2 mm",
    "lesions": (
        "BraTS 2023: 26-connected, truth dilated by 3 mm, lesions up to 50 mm3 not counted"
    ),
    "satellites": (
        "26-connected components of the true WT but the largest; found: a predicted voxel inside"
    ),
    "thresholds": "Youden on calibrated probabilities of the run's validation cases",
    "temperature": "smallest log loss on the run's validation cases",
    "uncertainty": (
        "risk: 1 - mean Dice, or error; confidence: minus mean entropy in the predicted tumour, "
        "distance from the threshold, or probability of the likeliest grade"
    ),
}


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate on what."""

    run: tyro.conf.Positional[Path]
    """Folder of a fine-tuned run, or one fine-tuned checkpoint."""
    data: Path
    """Shard set with kept ids, or a raw folder (BIDS, BraTS)."""
    out: Path
    """Folder for metrics.json and the tables of cases."""
    labels: Path | None = None
    """CSV or TSV with the cases' labels; without it those that the data carry themselves."""
    genes: Path | None = None
    """TSV with the cases' genes, for models that take them (mdl_ca)."""
    folds: tuple[int, ...] = ()
    """Members of RUN's ensemble, counted from 0; empty: all finished folds."""
    against: tuple[Path, ...] = ()
    """Other runs, each compared case by case."""
    cache: Path | None = None
    """Where a raw folder's shard set is kept; None: OUT/shards."""
    allow_leakage: bool = False
    """Measure on cases that the run has seen."""
    flips: bool = False
    """Test-time augmentation: average over all flips along the axes, at eight times the work."""
    draws: int = 0
    """Monte Carlo dropout: predict so often with dropout switched on and take the mean; 0: once,
    without."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""


def evaluate(config: EvaluateConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a run and write `metrics.json`, `cases.csv`, and `cases_against_<i>.csv`.

    Args:
        config: Runs, cases and where to write.
        provenance: Versions and hardware, kept with the figures.

    Returns:
        The content of `metrics.json`.

    Raises:
        UsageError: If a run is not one, has seen some of the cases, the labels do not fit, or
            another run needs other preprocessing.
    """
    run, *others = (
        FinetunedRun.open(path, folds).averaging(config.flips, config.draws)
        for path, folds in ((config.run, config.folds), *((path, ()) for path in config.against))
    )
    cache = config.cache or config.out / "shards"
    shards, cases = open_cases(
        (run, *others), config.data, config.labels, cache, config.allow_leakage
    )
    groups = find_groups(shards, cases, config.labels, config.data)
    ours, *theirs = (
        measure_cases(each, shards, cases, groups, config.device, config.genes)
        for each in (run, *others)
    )
    comparisons = [
        {"run": str(other.path), **compare(ours, results)}
        for other, results in zip(others, theirs, strict=True)
    ]
    metrics = {
        "format": FORMAT,
        "run": str(run.path),
        "model": run.summary.get("model"),
        "from": run.summary.get("from"),
        "folds": len(run.folders),
        "inference": asdict(run.inference),
        "data": str(config.data),
        **all_figures(ours, run),
        "comparisons": correct(comparisons),
        "against": comparisons,
        "conventions": CONVENTIONS,
        "provenance": provenance,
    }
    _write_tables(config.out, ours, theirs)
    write_conflicts(config.out, shards, config.labels, run.tasks)
    write_json(config.out / "metrics.json", metrics)
    return metrics


def open_cases(
    runs: Sequence[FinetunedRun],
    data: Path,
    labels: Path | None,
    cache: Path,
    allow_leakage: bool,
) -> tuple[ShardSet, list[LabelledCase]]:
    """Labelled cases that runs can be measured on.

    Args:
        runs: The first decides which tasks count.
        data: Shard set with kept ids, or a raw folder.
        labels: Label table; None for the labels that the data carry themselves.
        cache: Where a raw folder's shard set is kept.
        allow_leakage: Take cases that a run has seen.

    Raises:
        UsageError: If a run has seen some of the cases, the labels do not fit, or the runs
            preprocess otherwise.
    """
    run, *others = runs
    for other in others:
        if other.preprocessing != run.preprocessing:
            raise UsageError(f"{other.path}: preprocesses its cases otherwise than {run.path}")
    if labels is not None:
        read_label_table(labels)  # a bad table is refused before cases are preprocessed
    preprocess = PreprocessConfig.from_json(run.preprocessing)
    shards = open_or_build(data, cache, BuildConfig(keep_ids=True, preprocess=preprocess))
    cases = labelled_cases(shards, labels, _measurable(run, labels, shards))
    for each in runs:
        if not allow_leakage:
            refuse_leakage(cases, each.seen(), str(each.path))
    return shards, cases


def _write_tables(
    out: Path, ours: Sequence[CaseResult], theirs: Sequence[Sequence[CaseResult]]
) -> None:
    """The table of cases of each run; those of an earlier comparison go."""
    for stale in out.glob("cases_against_*.csv"):
        stale.unlink()
    write_cases(out / "cases.csv", ours)
    for number, results in enumerate(theirs, 1):
        write_cases(out / f"cases_against_{number}.csv", results)


def _measurable(run: FinetunedRun, labels: Path | None, shards: ShardSet) -> list[str]:
    """Tasks of the run for which there is a label, in the table or in the data."""
    known = known_tasks(shards, labels)
    if not known & set(run.tasks):
        raise UsageError(
            f"{run.path}: learned {', '.join(run.tasks)}, of which no case has a label; "
            f"there are labels of {', '.join(sorted(known)) or 'nothing'}; give others by --labels"
        )
    if missing := [task for task in run.tasks if task not in known]:
        log.warning("no case has a label of %s: not measured", ", ".join(missing))
    return [task for task in run.tasks if task in known]
