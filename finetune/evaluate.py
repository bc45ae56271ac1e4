"""Evaluation of a fine-tuned run on labelled cases it has not seen, with error bars.

`metrics.json`, format 1 (`null` wherever a figure does not exist, with `reason`):

    regions.<R>     cases, empty {truth, prediction, both}, and for each figure of
                    `metrics.segmentation.FIGURES` {mean, interval}; nested means in `mean_dice`
    markers.<task>  figures of `metrics.markers`
    against         with a second run: per region the paired difference of Dice, per binary marker
                    the difference of AUC, each {difference, interval, p_value}, ours minus theirs

Intervals are 95 %: bootstrap over cases for regions, DeLong for AUC. Cases are compared on the
study grid of their shard set.
"""

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import atomic_write, write_json
from gliomoe.data_shards.label_table import read_label_table
from gliomoe.data_shards.labels import REGIONS, to_regions
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import (
    LabelledCase,
    known_tasks,
    labelled_cases,
    refuse_leakage,
    write_conflicts,
)
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.intervals import bootstrap_mean, delong_test, paired_bootstrap
from gliomoe.finetune.metrics.markers import binary_figures, grade_figures
from gliomoe.finetune.metrics.segmentation import FIGURES, RegionFigures, region_figures
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.run import FinetunedRun

log = logging.getLogger(__name__)

FORMAT = 1

CONVENTIONS = {
    "empty_masks": (
        "both masks empty: ratios 1, HD95 0; one empty: ratios 0, HD95 the image diagonal in mm"
    ),
    "nsd": "MONAI surface Dice at 1 and 2 mm",
    "intervals": "95 %, bootstrap over cases (2000 resamples), DeLong for AUC",
    "thresholds": "Youden on validation cases of the run",
}


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate on what."""

    run: tyro.conf.Positional[Path]
    """Folder of a fine-tuned run, or one fine-tuned checkpoint."""
    data: Path
    """Shard set with kept ids, or a raw folder (BIDS, BraTS)."""
    out: Path
    """Folder for metrics.json and cases.csv."""
    labels: Path | None = None
    """CSV or TSV with the cases' labels; without it those that the data carry themselves."""
    genes: Path | None = None
    """TSV with the cases' genes, for models that take them (mdl_ca)."""
    against: Path | None = None
    """A second run, compared case by case."""
    cache: Path | None = None
    """Where a raw folder's shard set is kept; None: OUT/shards."""
    allow_leakage: bool = False
    """Measure on cases that the run has seen."""
    flips: bool = False
    """Test-time augmentation: average over all flips along the axes, at eight times the work."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""


@dataclass(frozen=True)
class CaseResult:
    """One case under one run."""

    case: LabelledCase
    regions: dict[str, RegionFigures]
    """Empty for cases without a segmentation."""
    markers: dict[str, list[float]]
    """Task → probabilities."""


def evaluate(config: EvaluateConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a run and write `metrics.json` and `cases.csv`.

    Args:
        config: Run, cases and where to write.
        provenance: Versions and hardware, kept with the figures.

    Returns:
        The content of `metrics.json`.

    Raises:
        UsageError: If the run is not one, has seen some of the cases, the labels do not fit, or
            the second run needs other preprocessing.
    """
    run = FinetunedRun.open(config.run).flipping(config.flips)
    other = (
        None if config.against is None else FinetunedRun.open(config.against).flipping(config.flips)
    )
    if other is not None and other.preprocessing != run.preprocessing:
        raise UsageError(f"{other.path}: preprocesses its cases otherwise than {run.path}")
    if config.labels is not None:
        read_label_table(config.labels)  # a bad table is refused before cases are preprocessed
    shards = open_or_build(
        config.data,
        config.cache or config.out / "shards",
        BuildConfig(keep_ids=True, preprocess=PreprocessConfig.from_json(run.preprocessing)),
    )
    cases = labelled_cases(shards, config.labels, _measurable(run, config.labels, shards))
    for each in (run, other):
        if each is not None and not config.allow_leakage:
            refuse_leakage(cases, each.seen(), str(each.path))
    results = predict_cases(run, shards, cases, config.device, config.genes)
    metrics = {
        "format": FORMAT,
        "run": str(run.path),
        "model": run.summary.get("model"),
        "from": run.summary.get("from"),
        "folds": len(run.folders),
        "data": str(config.data),
        "cases": len(cases),
        "conventions": CONVENTIONS,
        **figures(results, run.thresholds),
    }
    if other is not None:
        theirs = predict_cases(other, shards, cases, config.device, config.genes)
        metrics["against"] = {"run": str(other.path), **compare(results, theirs)}
    metrics["provenance"] = provenance
    write_cases(config.out / "cases.csv", results)
    write_conflicts(config.out, shards, config.labels, run.tasks)
    write_json(config.out / "metrics.json", metrics)
    return metrics


def predict_cases(
    run: FinetunedRun,
    shards: ShardSet,
    cases: Sequence[LabelledCase],
    device: str,
    genes: Path | None = None,
) -> list[CaseResult]:
    """Predict and measure every case; `genes` is a gene table for models that take one."""
    models = run.models(pick_device(device))
    cases = with_inputs(models[0], shards, cases, genes if models[0].genes else None)
    results = []
    for case in tqdm(cases, desc=run.path.name, unit="case", disable=None):
        sample = read_case(shards, case)
        prediction = predict_study(models, sample, run.inference)
        regions = {}
        if prediction.regions is not None and not math.isnan(sample.targets["seg"]):
            assert sample.seg is not None
            found, truth = prediction.regions > 0.5, to_regions(sample.seg)
            spacing = sample.spacing.tolist()
            regions = {
                region: region_figures(found[i], truth[i], spacing)
                for i, region in enumerate(REGIONS)
            }
        markers = {task: p.tolist() for task, p in prediction.markers.items()}
        results.append(CaseResult(case, regions, markers))
    return results


def figures(results: Sequence[CaseResult], thresholds: dict[str, float | None]) -> dict[str, Any]:
    """All figures over the cases: `regions`, `mean_dice`, `markers`."""
    measured = [result.regions for result in results if result.regions]
    regions = {}
    for region in REGIONS if measured else ():
        of_region = [case[region] for case in measured]
        regions[region] = {
            "cases": len(of_region),
            "empty": {
                which: sum(f.empty == which for f in of_region)
                for which in ("truth", "prediction", "both")
            },
            **{name: _mean([f.values[name] for f in of_region]) for name in FIGURES},
        }
    return {
        "regions": regions,
        "mean_dice": _mean([_mean_dice(case) for case in measured]) if measured else None,
        "markers": {
            task: _marker_figures(results, task, thresholds.get(task))
            for task in (results[0].markers if results else ())
        },
    }


def compare(ours: Sequence[CaseResult], theirs: Sequence[CaseResult]) -> dict[str, Any]:
    """Paired differences on the same cases, ours minus theirs."""
    pairs = [
        (a.regions, b.regions) for a, b in zip(ours, theirs, strict=True) if a.regions and b.regions
    ]
    dice = {}
    for region in REGIONS if pairs else ():
        a, b = np.array([[x[region].values["dice"] for x in pair] for pair in pairs]).T
        dice[region] = asdict(paired_bootstrap(a, b))
    if pairs:
        a, b = np.array([[_mean_dice(x) for x in pair] for pair in pairs]).T
        dice["mean"] = asdict(paired_bootstrap(a, b))
    auc: dict[str, Any] = {}
    for task in ours[0].markers if ours else ():
        if task == "grade" or task not in theirs[0].markers:
            continue
        truth, score = _pairs(ours, task)
        if len(np.unique(truth)) < 2:
            auc[task] = None
        else:
            auc[task] = asdict(delong_test(truth, score[:, 0], _pairs(theirs, task)[1][:, 0]))
    return {"dice": dice, "auc": auc}


def write_cases(path: Path, results: Sequence[CaseResult]) -> None:
    """One line per case: figures of each region, probabilities and labels of each marker."""
    columns = [f"{region}_{name}" for region in REGIONS for name in (*FIGURES, "empty")]
    tasks = list(results[0].markers) if results else []
    spelt = [name for task in tasks for name in (*_probability_columns(task), f"{task}_label")]
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", "subject", *columns, *spelt])
        for result in results:
            row: list[Any] = [result.case.key, result.case.subject]
            for region in REGIONS:
                found = result.regions.get(region)
                row += [found.values[name] if found else "" for name in FIGURES]
                row.append(found.empty if found else "")
            for task in tasks:
                label = result.case.targets.get(task, math.nan)
                row += [*result.markers[task], "" if math.isnan(label) else f"{label:g}"]
            writer.writerow(row)


def _probability_columns(task: str) -> list[str]:
    return [f"grade_p{grade:g}" for grade in GRADES] if task == "grade" else [f"{task}_p"]


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


def _pairs(results: Sequence[CaseResult], task: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and probabilities [n, classes] of the cases with a known label."""
    known = [r for r in results if not math.isnan(r.case.targets.get(task, math.nan))]
    truth = np.array([r.case.targets[task] for r in known])
    score = np.array([r.markers[task] for r in known])
    return truth, score.reshape(len(known), -1)


def _marker_figures(
    results: Sequence[CaseResult], task: str, threshold: float | None
) -> dict[str, Any]:
    truth, score = _pairs(results, task)
    if task == "grade":
        return grade_figures(truth, score, GRADES)
    return binary_figures(truth, score.reshape(-1), threshold)


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "interval": bootstrap_mean(np.array(values))}


def _mean_dice(regions: dict[str, RegionFigures]) -> float:
    return float(np.mean([figure.values["dice"] for figure in regions.values()]))
