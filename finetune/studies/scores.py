"""Dice and markers of the same cases under many conditions, and the rows of a study from them.

Only what the studies show is computed: no distances, which take most of an evaluation's time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.labels import REGIONS, to_regions
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.calibration import calibrated
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.evaluate import open_cases
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.auc import delong_auc
from gliomoe.finetune.metrics.intervals import Interval, bootstrap_mean
from gliomoe.finetune.metrics.markers import grade_figures
from gliomoe.finetune.metrics.paired import PairedTest, delong_test, wilcoxon_test
from gliomoe.finetune.metrics.segmentation import dice
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.finetune.run import FinetunedRun
from gliomoe.finetune.studies.output import Row
from gliomoe.models.model import Model


@dataclass(frozen=True, kw_only=True)
class ModelStudyConfig:
    """Options of every study that runs models on cases."""

    out: Path
    """Folder for study.json, table.csv and plot.png."""
    genes: Path | None = None
    """TSV with the cases' genes, for models that take them (mdl_ca)."""
    allow_leakage: bool = False
    """Measure on cases that a run has seen."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class RunStudyConfig(ModelStudyConfig):
    """Options of every study of one run on one cohort."""

    run: tyro.conf.Positional[Path]
    """Folder of a fine-tuned run, or one fine-tuned checkpoint."""
    data: Path
    """Shard set with kept ids, or a raw folder (BIDS, BraTS)."""
    labels: Path | None = None
    """CSV or TSV with the cases' labels; without it those that the data carry themselves."""
    cache: Path | None = None
    """Where a raw folder's shard set is kept; None: OUT/shards."""

    def cases_of(self, run: FinetunedRun) -> tuple[ShardSet, list[LabelledCase]]:
        """The studies and their labelled cases; errors as of `open_cases`."""
        cache = self.cache or self.out / "shards"
        return open_cases([run], self.data, self.labels, cache, self.allow_leakage)


@dataclass(frozen=True)
class CaseScores:
    """One case under one condition."""

    key: str
    targets: dict[str, float]
    """Task → label, NaN where it is unknown; `seg` is NaN without a segmentation."""
    dice: tuple[float, ...]
    """Of each region; empty without a segmentation, and for runs that do not segment."""
    markers: dict[str, list[float]]
    """Task → calibrated probabilities."""


def score(run: FinetunedRun, models: Sequence[Model], sample: StudySample) -> CaseScores:
    """Predict one case and measure it."""
    prediction = predict_study(models, sample, run.inference)
    overlap: tuple[float, ...] = ()
    if prediction.regions is not None and not math.isnan(sample.targets["seg"]):
        assert sample.seg is not None
        overlap = tuple(dice(prediction.regions > 0.5, to_regions(sample.seg)).tolist())
    markers = calibrated(prediction.markers, run.temperatures)
    told = {task: probability.tolist() for task, probability in markers.items()}
    return CaseScores(sample.key, sample.targets, overlap, told)


def score_rows(
    by: Row, scores: Sequence[CaseScores], reference: Sequence[CaseScores] | None = None
) -> list[Row]:
    """Rows of one condition: Dice by region and their mean, AUC by task.

    Args:
        by: Columns that name the condition.
        scores: All cases.
        reference: The same cases under the condition to compare with, paired; the macro-AUC of
            the grade has no paired test.
    """
    rows = []
    measured = [i for i, case in enumerate(scores) if case.dice]
    overlap = [np.array([c[i].dice for i in measured]) for c in (scores, reference or ()) if c]
    for number, measure in enumerate((*REGIONS, "mean") if measured else ()):
        values = [d.mean(1) if measure == "mean" else d[:, number] for d in overlap]
        row = {**by, "measure": f"Dice {measure}", "cases": len(measured)}
        row |= ends(float(values[0].mean()), bootstrap_mean(values[0])) | {"reason": None}
        rows.append(row | difference(wilcoxon_test(*values) if reference else None))
    for task in scores[0].markers:
        rows.append({**by, **_auc(task, scores, reference)})
    return rows


def ends(value: float | None, interval: Interval | None) -> Row:
    """The columns of a figure and its interval."""
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high}


def difference(test: PairedTest | None) -> Row:
    """The columns of a paired difference, None without one."""
    low, high = (test and test.interval) or (None, None)
    return {
        "difference": test and test.difference,
        "difference_low": low,
        "difference_high": high,
        "p_value": test and test.p_value,
    }


def _auc(task: str, scores: Sequence[CaseScores], reference: Sequence[CaseScores] | None) -> Row:
    known = [i for i, case in enumerate(scores) if not math.isnan(case.targets.get(task, math.nan))]
    truth = np.array([scores[i].targets[task] for i in known])
    row: Row = {"measure": f"AUC {TASK_NAMES[task]}", "cases": len(known)}
    if len(np.unique(truth)) < 2:
        reason = f"all {len(known)} cases are of one class" if known else "no known label"
        return row | ends(None, None) | {"reason": reason} | difference(None)
    if task == "grade":
        probability = np.array([scores[i].markers[task] for i in known])
        found = grade_figures(truth, probability, GRADES)["macro_auc"]
        return row | ends(found["value"], found["interval"]) | {"reason": None} | difference(None)
    ours, *theirs = (
        np.array([each[i].markers[task][0] for i in known]) for each in (scores, reference) if each
    )
    area = delong_auc(truth, ours)
    test = delong_test(truth, ours, *theirs) if theirs else None
    return row | ends(area.value, area.interval) | {"reason": None} | difference(test)
