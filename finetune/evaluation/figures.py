"""Figures over many cases, each with its interval, as `metrics.json` holds them.

`finetune/METRICS.md` says what every key means.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gliomoe.data_shards.labels import REGIONS
from gliomoe.finetune.evaluation.cases import CaseResult
from gliomoe.finetune.evaluation.groups import UNKNOWN
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.intervals import (
    bootstrap_mean,
    bootstrap_ratio,
    percentile_interval,
    resample,
)
from gliomoe.finetune.metrics.lesions import SIZES
from gliomoe.finetune.metrics.markers import binary_figures, calibration_figures, grade_figures
from gliomoe.finetune.metrics.referral import aurc, kept_risk, referred
from gliomoe.finetune.metrics.reliability import Forecasts
from gliomoe.finetune.metrics.segmentation import FIGURES
from gliomoe.finetune.run import FinetunedRun


def all_figures(results: Sequence[CaseResult], run: FinetunedRun) -> dict[str, Any]:
    """Figures over all cases, by group, and of uncertainty against error."""
    return {
        **figures(results, run),
        "groups": by_group(results, run),
        "uncertainty": uncertainty_figures(results, run),
    }


def figures(results: Sequence[CaseResult], run: FinetunedRun) -> dict[str, Any]:
    """`regions`, `mean_dice`, `satellites` and `markers` over some cases."""
    measured = [result for result in results if result.regions]
    return {
        "cases": len(results),
        "regions": {region: _region(measured, region) for region in REGIONS if measured},
        "mean_dice": _mean([result.mean_dice for result in measured]) if measured else None,
        "satellites": _satellites(measured),
        "markers": {
            task: _marker(results, task, run) for task in (results[0].markers if results else ())
        },
    }


def by_group(results: Sequence[CaseResult], run: FinetunedRun) -> dict[str, Any]:
    """Grouping → the cases in no group, and for each group its figures."""
    groups = {}
    for grouping, reason in UNKNOWN.items():
        names = [result.groups[grouping] for result in results]
        values = sorted({name for name in names if name is not None})
        groups[grouping] = {
            "unknown": names.count(None),
            "reason": None if values else reason,
            "values": {
                value: figures([r for r in results if r.groups[grouping] == value], run)
                for value in values
            },
        }
    return groups


def uncertainty_figures(results: Sequence[CaseResult], run: FinetunedRun) -> dict[str, Any]:
    """Task → whether little confidence goes with error."""
    measured = [result for result in results if result.regions]
    tasks = {}
    if measured:
        risk = np.array([1 - result.mean_dice for result in measured])
        doubt = np.array([result.uncertainty for result in measured], float)
        tasks["seg"] = _referral(risk, -doubt)
    for task in results[0].markers if results else ():
        known = [result for result in results if not math.isnan(result.label(task))]
        if known:
            wrong = [float(r.markers[task].called != r.label(task)) for r in known]
            probability = np.array([r.markers[task].probability for r in known])
            sure = confidence(probability, run.thresholds.get(task))
            tasks[task] = _referral(np.array(wrong), sure)
    return tasks


def marker_arrays(
    results: Sequence[CaseResult], task: str, raw: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and probabilities [n, classes] of the cases with a known label."""
    known = [result for result in results if not math.isnan(result.label(task))]
    truth = np.array([result.label(task) for result in known])
    markers = [result.markers[task] for result in known]
    score = np.array([marker.raw if raw else marker.probability for marker in markers])
    classes = len(results[0].markers[task].raw)
    return truth, score.reshape(len(known), classes)


def _region(measured: Sequence[CaseResult], region: str) -> dict[str, Any]:
    found = [result.regions[region].figures for result in measured]
    return {
        "cases": len(found),
        "empty": {
            which: sum(f.empty == which for f in found) for which in ("truth", "prediction", "both")
        },
        **{name: _mean([f.values[name] for f in found]) for name in FIGURES},
        "lesions": _lesions(measured, region),
    }


def _lesions(measured: Sequence[CaseResult], region: str) -> dict[str, Any]:
    """Counts over the cases, pooled sensitivity and precision, mean lesion-wise Dice."""
    found = [result.regions[region].lesions for result in measured]
    counts = {
        name: np.array([getattr(f, name) for f in found])
        for name in ("lesions", "found", "predicted", "matched")
    }
    return {
        **{name: int(count.sum()) for name, count in counts.items()},
        "sensitivity": _pooled(counts["found"], counts["lesions"]),
        "precision": _pooled(counts["matched"], counts["predicted"]),
        "dice": _mean([f.dice for f in found]),
    }


def _satellites(measured: Sequence[CaseResult]) -> dict[str, Any]:
    """Size class → satellites of the whole tumour, found, sensitivity."""
    classes = {}
    for size in SIZES if measured else ():
        flags = [[s.found for s in result.satellites if s.size == size] for result in measured]
        there, found = np.array([len(f) for f in flags]), np.array([sum(f) for f in flags])
        classes[size] = {
            "satellites": int(there.sum()),
            "found": int(found.sum()),
            "sensitivity": _pooled(found, there),
        }
    return classes


def _marker(results: Sequence[CaseResult], task: str, run: FinetunedRun) -> dict[str, Any]:
    truth, score = marker_arrays(results, task)
    raw = marker_arrays(results, task, raw=True)[1]
    temperature = run.temperatures[task]
    if task == "grade":
        found = grade_figures(truth, score, GRADES)
        index = np.array([GRADES.index(label) for label in truth], int)
        before, after = Forecasts.of_classes(index, raw), Forecasts.of_classes(index, score)
    else:
        found = binary_figures(truth, score.reshape(-1), run.thresholds.get(task))
        before = Forecasts.of_binary(truth, raw.reshape(-1))
        after = Forecasts.of_binary(truth, score.reshape(-1))
    found["calibration"] = {
        "temperature": temperature.value,
        "validation_cases": temperature.cases,
        "reason": temperature.reason,
        "before": calibration_figures(before, truth),
        "after": calibration_figures(after, truth),
    }
    return found


def confidence(probability: np.ndarray, threshold: float | None) -> np.ndarray:
    """Distance from the threshold of a binary marker, or probability of the likeliest grade.

    Args:
        probability: [cases, 1] or [cases, grades], calibrated.
        threshold: Of a binary marker; None means 0.5.
    """
    if probability.shape[1] > 1:
        return probability.max(1)
    return np.abs(probability[:, 0] - (0.5 if threshold is None else threshold))


def _referral(risk: np.ndarray, sure: np.ndarray) -> dict[str, Any]:
    """AURC, and the mean of 1 − risk before and after referring the least confident tenth."""
    cases, away = len(risk), referred(len(risk))
    draws = [np.repeat(np.arange(cases), w.astype(int)) for w in resample(cases)]

    def interval(values: Sequence[float]) -> Any:
        return percentile_interval(np.array(values)) if cases > 1 else None

    kept = None
    if away:
        kept = {
            "value": 1 - kept_risk(risk, sure),
            "interval": interval([1 - kept_risk(risk[d], sure[d]) for d in draws]),
        }
    return {
        "cases": cases,
        "score": {"value": float(1 - risk.mean()), "interval": bootstrap_mean(1 - risk)},
        "aurc": {
            "value": aurc(risk, sure),
            "interval": interval([aurc(risk[d], sure[d]) for d in draws]),
        },
        "aurc_chance": float(risk.mean()),
        "aurc_best": aurc(risk, -risk),
        "referred": away,
        "score_after_referral": kept,
        "reason": None if away else f"a tenth of {cases} cases is none",
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "interval": bootstrap_mean(np.array(values))}


def _pooled(part: np.ndarray, whole: np.ndarray) -> dict[str, Any] | None:
    """Ratio of two sums over cases; None where there is nothing to divide by."""
    if not whole.sum():
        return None
    value = float(part.sum() / whole.sum())
    return {"value": value, "interval": bootstrap_ratio(part, whole)}
