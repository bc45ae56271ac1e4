"""What is kept of Dice as models shrink: ensembles, single folds, students, pruned runs.

Notable: all runs predict each case in turn, so that a busy machine slows them alike; the first run
is what the others are compared with. Dice kept is a run's mean Dice over that of the first, its
interval from resamples of the same cases for both.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.labels import REGIONS, to_regions
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.evaluate import open_cases
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.metrics.intervals import bootstrap_mean, bootstrap_ratio
from gliomoe.finetune.metrics.paired import wilcoxon_test
from gliomoe.finetune.metrics.segmentation import dice
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.report.evaluations import folder_names
from gliomoe.finetune.run import FinetunedRun
from gliomoe.finetune.studies.output import Row
from gliomoe.finetune.studies.plots import below, colours, panels
from gliomoe.finetune.studies.scores import ModelStudyConfig
from gliomoe.models.checkpoint import WEIGHTS
from gliomoe.models.model import Model
from gliomoe.models.registry import parameter_counts

MEAN = "Dice mean"


@dataclass(frozen=True, kw_only=True)
class SmallerConfig(ModelStudyConfig):
    """Which runs, on what."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Fine-tuned runs or single checkpoints; the others are compared with the first."""
    data: Path
    """Shard set with kept ids, or a raw folder (BIDS, BraTS), with segmentations."""
    cache: Path | None = None
    """Where a raw folder's shard set is kept; None: OUT/shards."""


@dataclass(frozen=True)
class Measured:
    """One run on all cases."""

    name: str
    members: int
    parameters: int
    """Of all members."""
    active: int
    """Of all members, those that act on one token."""
    bytes: int
    """Of the weights on disk."""
    dice: np.ndarray
    """[cases, R]."""
    seconds: np.ndarray
    """[cases] of prediction, without reading the case."""


def measure_runs(config: SmallerConfig) -> list[Measured]:
    """Predict the cases with every run.

    Raises:
        UsageError: If a run is given twice, does not segment, preprocesses otherwise than the
            first, or has seen some of the cases.
    """
    names = folder_names(config.runs)
    runs = [FinetunedRun.open(path) for path in config.runs]
    for run in runs:
        if "seg" not in run.tasks:
            raise UsageError(f"{run.path}: does not segment (it learned {', '.join(run.tasks)})")
    cache = config.cache or config.out / "shards"
    shards, labelled = open_cases(runs, config.data, None, cache, config.allow_leakage)
    cases = [case for case in labelled if case.targets.get("seg") == 1]
    if not cases:
        raise UsageError(f"{config.data}: no case has a segmentation")
    return _measure(dict(zip(names, runs, strict=True)), shards, cases, config)


def _measure(
    named: Mapping[str, FinetunedRun],
    shards: ShardSet,
    cases: Sequence[LabelledCase],
    config: SmallerConfig,
) -> list[Measured]:
    """Sizes of the runs; Dice and seconds of each case, which all predict in turn."""
    runs = list(named.values())
    ensembles = [run.models(pick_device(config.device)) for run in runs]
    for models, run in zip(ensembles, runs, strict=True):
        genes = config.genes if models[0].genes else None
        cases = with_inputs(models[0], shards, cases, genes)
        # Untimed: what the first prediction loads and sets up.
        predict_study(models, read_case(shards, cases[0]), run.inference)
    overlaps = np.zeros((len(runs), len(cases), len(REGIONS)))
    seconds = np.zeros((len(runs), len(cases)))
    for column, case in enumerate(tqdm(cases, unit="case", disable=None)):
        sample = read_case(shards, case)
        assert sample.seg is not None
        for row, (models, run) in enumerate(zip(ensembles, runs, strict=True)):
            begun = time.perf_counter()
            prediction = predict_study(models, sample, run.inference)
            seconds[row, column] = time.perf_counter() - begun
            assert prediction.regions is not None
            overlaps[row, column] = dice(prediction.regions > 0.5, to_regions(sample.seg))
    return [
        _sized(name, named[name], models, *figures)
        for name, models, *figures in zip(named, ensembles, overlaps, seconds, strict=True)
    ]


def _sized(
    name: str,
    run: FinetunedRun,
    models: Sequence[Model],
    overlaps: np.ndarray,
    seconds: np.ndarray,
) -> Measured:
    """The figures of a run with its size."""
    counts = np.array([parameter_counts(model) for model in models]).sum(0)
    return Measured(
        name=name,
        members=len(models),
        parameters=int(counts[0]),
        active=int(counts[1]),
        bytes=sum((folder / WEIGHTS).stat().st_size for folder in run.folders),
        dice=overlaps,
        seconds=seconds,
    )


def rows_of(measured: Sequence[Measured]) -> list[Row]:
    """The rows of the study, as `studies.output` describes them."""
    first = measured[0]
    wanted = {f"Dice {region}": [i] for i, region in enumerate(REGIONS)}
    wanted[MEAN] = list(range(len(REGIONS)))
    rows = []
    for one in measured:
        about = {"run": one.name, "members": one.members, "cases": len(one.dice)}
        for name, columns in wanted.items():
            ours, theirs = one.dice[:, columns].mean(1), first.dice[:, columns].mean(1)
            row = {**about, "measure": name, **_figure(ours.mean(), bootstrap_mean(ours))}
            rows.append(row if one is first else {**row, **_difference(ours, theirs)})
        # The mean came last.
        kept = ours.sum() / theirs.sum() if theirs.any() else None
        interval = bootstrap_ratio(ours, theirs)
        rows.append({**about, "measure": "Dice kept", **_figure(kept, interval)})
        time_ = _figure(one.seconds.mean(), bootstrap_mean(one.seconds))
        rows.append({**about, "measure": "seconds a case", **time_})
        sizes = {
            "M parameters": one.parameters / 1e6,
            "M active": one.active / 1e6,
            "MB on disk": one.bytes / 1e6,
        }
        rows += [{**about, "measure": name, **_figure(size, None)} for name, size in sizes.items()]
    return rows


def _figure(value: float | None, interval: tuple[float, float] | None) -> Row:
    low, high = interval or (None, None)
    return {"value": None if value is None else float(value), "low": low, "high": high}


def _difference(ours: np.ndarray, theirs: np.ndarray) -> Row:
    """One run minus the first, paired by case."""
    found = wilcoxon_test(ours, theirs)
    low, high = found.interval or (None, None)
    return {
        "difference": found.difference,
        "difference_low": low,
        "difference_high": high,
        "p_value": found.p_value,
    }


def plot(rows: Sequence[Row]) -> Figure:
    """Mean Dice against megabytes and against seconds, a point for each run."""
    by_run: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_run.setdefault(row["run"], {})[row["measure"]] = row
    against = ("MB on disk", "seconds a case")
    with panels([MEAN] * len(against)) as (figure, axes):
        for axis, measure in zip(axes, against, strict=True):
            for name, (colour, marker) in colours(list(by_run)).items():
                place, row = by_run[name][measure]["value"], by_run[name][MEAN]
                axis.plot(place, row["value"], marker, color=colour, label=name, markersize=5)
                if row["low"] is not None:
                    axis.plot([place, place], [row["low"], row["high"]], color=colour, linewidth=1)
            axis.set(xlabel=measure, xlim=(0, None), ylim=(0, 1))
        below(figure, axes[0])
    return figure
