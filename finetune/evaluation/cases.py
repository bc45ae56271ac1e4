"""Every case predicted and measured, and the table of all that is known of each."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.labels import REGIONS, to_regions
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.calibration import calibrated
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.evaluation.groups import Groups
from gliomoe.finetune.inference import StudyPrediction, predict_study
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.lesions import (
    SIZES,
    LesionFigures,
    Satellite,
    lesion_figures,
    satellites,
)
from gliomoe.finetune.metrics.segmentation import FIGURES, RegionFigures, region_figures
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.run import FinetunedRun

_COUNTS = ("lesions", "found", "predicted", "matched")


@dataclass(frozen=True)
class RegionResult:
    """One region of one case."""

    figures: RegionFigures
    lesions: LesionFigures
    left_out_ml: float
    """What was predicted of it and left out as noise before it was measured; mostly 0."""


@dataclass(frozen=True)
class MarkerResult:
    """One marker, or the grade, of one case."""

    raw: list[float]
    """Probabilities as the ensemble gives them."""
    probability: list[float]
    """Calibrated."""
    called: float
    """The decision: 0 or 1, or a WHO grade."""


@dataclass(frozen=True)
class CaseResult:
    """One case under one run."""

    case: LabelledCase
    groups: Groups
    regions: dict[str, RegionResult]
    """Empty for cases without a segmentation, and for runs that do not segment."""
    satellites: tuple[Satellite, ...]
    """Of the whole tumour."""
    uncertainty: float | None
    """Mean uncertainty in the predicted tumour, in bits; its largest value anywhere if none is
    predicted. None without a segmentation."""
    markers: dict[str, MarkerResult]

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the regions, of a case that has them."""
        return float(np.mean([found.figures.values["dice"] for found in self.regions.values()]))

    def label(self, task: str) -> float:
        """The known label, NaN where there is none."""
        return self.case.targets.get(task, math.nan)


def measure_cases(
    run: FinetunedRun,
    shards: ShardSet,
    cases: Sequence[LabelledCase],
    groups: Mapping[str, Groups],
    device: str,
    genes: Path | None = None,
) -> list[CaseResult]:
    """Predict and measure every case.

    Args:
        run: The run.
        shards: The studies.
        cases: Which of them.
        groups: Study key → groups.
        device: `auto`: the GPU if there is one.
        genes: Gene table for models that take one.
    """
    models = run.models(pick_device(device))
    cases = with_inputs(models[0], shards, cases, genes if models[0].genes else None)
    results = []
    for case in tqdm(cases, desc=run.path.name, unit="case", disable=None):
        sample = read_case(shards, case)
        prediction = predict_study(models, sample, run.inference)
        regions: dict[str, RegionResult] = {}
        small: tuple[Satellite, ...] = ()
        uncertainty = None
        if prediction.regions is not None and not math.isnan(sample.targets["seg"]):
            regions, small = _regions(prediction, sample)
            uncertainty = _tumour_uncertainty(prediction)
        markers = _markers(run, prediction)
        results.append(CaseResult(case, groups[case.key], regions, small, uncertainty, markers))
    return results


def write_cases(path: Path, results: Sequence[CaseResult]) -> None:
    """One line per case: groups, figures of each region, each marker; empty where unknown."""
    rows = [_row(result) for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def _regions(
    prediction: StudyPrediction, sample: StudySample
) -> tuple[dict[str, RegionResult], tuple[Satellite, ...]]:
    """Figures of each region, and the satellites of the whole tumour."""
    assert prediction.regions is not None and sample.seg is not None
    found, truth = prediction.regions > 0.5, to_regions(sample.seg)
    spacing = tuple(sample.spacing.tolist())
    results = {
        region: RegionResult(
            region_figures(found[i], truth[i], spacing),
            lesion_figures(found[i].numpy(), truth[i].numpy(), spacing),
            prediction.left_out.get(region, 0.0),
        )
        for i, region in enumerate(REGIONS)
    }
    whole = list(REGIONS).index("WT")
    return results, satellites(found[whole].numpy(), truth[whole].numpy(), spacing)


def _tumour_uncertainty(prediction: StudyPrediction) -> float:
    assert prediction.regions is not None and prediction.uncertainty is not None
    tumour = (prediction.regions > 0.5).any(0)
    inside = prediction.uncertainty[tumour]
    return float(inside.mean() if len(inside) else prediction.uncertainty.max())


def _markers(run: FinetunedRun, prediction: StudyPrediction) -> dict[str, MarkerResult]:
    """Probabilities before and after calibration, and decisions."""
    after = calibrated(prediction.markers, run.temperatures)
    return {
        task: MarkerResult(raw.tolist(), after[task].tolist(), _call(run, task, after[task]))
        for task, raw in prediction.markers.items()
    }


def _call(run: FinetunedRun, task: str, probability: torch.Tensor) -> float:
    if task == "grade":
        return GRADES[int(probability.argmax())]
    threshold = run.thresholds.get(task)
    return float(probability.item() >= (0.5 if threshold is None else threshold))


def _row(result: CaseResult) -> dict[str, Any]:
    """A line of the table, by column."""
    row: dict[str, Any] = {"key": result.case.key, "subject": result.case.subject}
    row |= {f"group_{name}": value or "" for name, value in result.groups.items()}
    for region, found in result.regions.items():
        row |= {f"{region}_{name}": found.figures.values[name] for name in FIGURES}
        counts = asdict(found.lesions)
        row |= {f"{region}_empty": found.figures.empty, f"{region}_lesion_dice": counts["dice"]}
        row |= {f"{region}_lesions_{name}": counts[name] for name in _COUNTS}
        row[f"{region}_left_out_ml"] = found.left_out_ml
    if result.regions:
        row |= {"mean_dice": result.mean_dice, "uncertainty": result.uncertainty}
        for size in SIZES:
            of_size = [s.found for s in result.satellites if s.size == size]
            row |= {f"satellites_{size}": len(of_size), f"satellites_{size}_found": sum(of_size)}
    for task, marker in result.markers.items():
        names = [f"{task}_p{g:g}" for g in GRADES] if task == "grade" else [f"{task}_p"]
        row |= dict(zip(names, marker.probability, strict=True))
        row |= {f"{name}_raw": p for name, p in zip(names, marker.raw, strict=True)}
        label = result.label(task)
        known = "" if math.isnan(label) else f"{label:g}"
        row |= {f"{task}_called": f"{marker.called:g}", f"{task}_label": known}
    return row
