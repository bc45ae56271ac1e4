"""The cases that a report shows: validation cases of the run, and predicted cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest.source import read_source
from gliomoe.data_shards.labels import REGIONS, from_regions, to_canonical, to_regions
from gliomoe.data_shards.nifti import read_labels
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.data_shards.study import source_files, to_source
from gliomoe.finetune.calibration import calibrated
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.metrics.segmentation import dice
from gliomoe.finetune.predict import CLASSES, TASK_NAMES, decide, read_record
from gliomoe.finetune.report.scans import Scan
from gliomoe.finetune.run import FinetunedRun
from gliomoe.models.model import Model

SHOWN = ("flair", "t1ce", "t2", "t1")
"""Order in which sequences are offered; others follow."""


@dataclass(frozen=True)
class HeldOut:
    """A validation case and the model of the fold that did not train on it."""

    fold: int
    case: LabelledCase
    model: Model


def validation_scan(held_out: HeldOut, shards: ShardSet, run: FinetunedRun) -> Scan:
    """A validation case with its prediction and its reference labels."""
    case = held_out.case
    sample = read_case(shards, case)
    prediction = predict_study([held_out.model], sample, run.inference)
    assert sample.seg is not None
    labels: dict[str, np.ndarray] = {}
    facts: dict[str, str] = {}
    if prediction.regions is not None:
        regions = prediction.regions >= 0.5
        labels["prediction"] = from_regions(regions).numpy()
        if case.targets.get("seg") == 1:
            labels["reference"] = sample.seg.numpy()
            found = dice(regions, to_regions(sample.seg)).tolist()
            facts |= {f"Dice {r}": f"{d:.2f}" for r, d in zip(REGIONS, found, strict=True)}
    else:
        labels["reference"] = sample.seg.numpy()
    for task, probability in calibrated(prediction.markers, run.temperatures).items():
        text = _decision(decide(task, probability.tolist(), run.thresholds.get(task)))
        if not math.isnan(target := case.targets.get(task, math.nan)):
            text += f"; label: {_label(task, target)}"
        facts[TASK_NAMES[task]] = text
    names = [SEQUENCES[number] for number in sample.sequence.tolist()]
    return Scan(
        title=f"{case.key} (validation, fold {held_out.fold + 1})",
        images=_ordered(dict(zip(names, sample.voxels.numpy(), strict=True))),
        labels=labels,
        affine=shards.affine(case.position),
        facts=facts,
    )


def prediction_scans(folder: Path) -> list[Scan]:
    """The cases that `gliomoe predict` left in a folder, on the images they were predicted from.

    Raises:
        UsageError: If the folder holds none, or an image is no longer where it was.
    """
    records = [path for path in sorted(folder.glob("*.json")) if path.is_file()]
    if not records:
        raise UsageError(f"{folder}: holds no predicted case; give a folder of gliomoe predict")
    return [_prediction_scan(folder, read_record(path)) for path in records]


def _prediction_scan(folder: Path, record: Mapping[str, Any]) -> Scan:
    """One predicted case: the reference series, and every other series on its grid."""
    files = {name: to_source(where) for name, where in record["sequences"]["files"].items()}
    for path in (path for source in files.values() for path in source_files(source)):
        if not path.is_file():
            raise UsageError(f"{path}: the image of case {record['case']} is no longer there")
    first = record["reference"]["sequence"]
    reference = read_source(files[first])
    images = {first: reference.data}
    for name in record["sequences"]["used"]:
        volume = read_source(files[name])
        if volume.data.shape == reference.data.shape and np.allclose(
            volume.affine, reference.affine, atol=1e-3
        ):
            images[name] = volume.data
    labels = {"prediction": np.zeros(reference.data.shape, np.uint8)}
    facts = {"Missing": ", ".join(record["sequences"]["missing"]) or "none"}
    if segmentation := record.get("segmentation"):
        seg = read_labels(folder / segmentation["files"]["labels"]).data
        labels["prediction"] = to_canonical(seg, segmentation["convention"])
        facts |= {f"Volume {r}": f"{ml:.1f} ml" for r, ml in segmentation["volumes_ml"].items()}
        left_out = segmentation.get("left_out_ml", {})
        facts |= {f"Left out {r}": f"{ml:.1f} ml, as noise" for r, ml in left_out.items()}
    facts |= {TASK_NAMES[task]: _decision(made) for task, made in record["markers"].items()}
    return Scan(f"{record['case']} (prediction)", _ordered(images), labels, reference.affine, facts)


def _decision(made: Mapping[str, Any]) -> str:
    """A decision with what it rests on: `mutant: p = 0.41, threshold 0.30`."""
    likeliest, p = max(made["probability"].items(), key=lambda item: item[1])
    if "threshold" not in made:
        return f"{made['decision']}: p = {p:.2f}"
    return f"{made['decision']}: p({likeliest}) = {p:.2f}, threshold {made['threshold']:.2f}"


def _label(task: str, target: float) -> str:
    """A known label as people write it."""
    return CLASSES[task][int(target) - 2 if task == "grade" else int(target)]


def _ordered(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sequences in the order in which they are offered."""
    rank: Sequence[str] = [*SHOWN, *images]
    return {name: images[name] for name in sorted(images, key=rank.index)}
