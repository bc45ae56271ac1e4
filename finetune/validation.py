"""Judging weights on the validation cases of a fold, whole studies at a time."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.labels import REGIONS, to_regions
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.inference import InferenceConfig, predict_study
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.metrics.segmentation import dice
from gliomoe.finetune.specks import Extent, volumes_ml

ValidationCase = StudySample
"""A whole study with `seg` and `targets`."""


@dataclass(frozen=True)
class Validated:
    """How weights did on the validation cases."""

    score: float
    """Mean Dice − weight × mean log loss of the markers; what early stopping maximises."""
    dice: dict[str, float]
    """Region → mean over the cases with a segmentation; empty without the task."""
    log_loss: dict[str, float]
    """Marker task → mean over the cases with a known label."""
    markers: dict[str, dict[str, list[float]]]
    """Study key → task → probabilities, from weights that never saw the case."""
    extents: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Study key → region → fields of an `Extent`, of the cases with a segmentation."""

    def scalars(self) -> dict[str, float]:
        """What is worth a curve."""
        curves = {f"dice_{region}": value for region, value in self.dice.items()}
        curves |= {f"log_loss_{task}": value for task, value in self.log_loss.items()}
        return {"score": self.score, **curves}


def inference_config(config: FinetuneConfig) -> InferenceConfig:
    """Windows of the configured size, or of that of the training crops."""
    window = config.crop.window or config.crop.size
    return InferenceConfig(
        window=window, batch=config.train.batch, precision=config.train.precision
    )


def validate(
    model: nn.Module, cases: Sequence[ValidationCase], config: FinetuneConfig
) -> Validated:
    """Predict every case and compare.

    Args:
        model: Put into evaluation mode.
        cases: Whole studies; what is unknown of them is left out of the means.
        config: Crop size, precision and the weight of the markers in the score.
    """
    by_region: list[Tensor] = []
    by_task: dict[str, list[float]] = {}
    markers: dict[str, dict[str, list[float]]] = {}
    extents: dict[str, dict[str, dict[str, float]]] = {}
    for case in cases:
        prediction = predict_study([model], case, inference_config(config))
        if prediction.regions is not None and not math.isnan(case.targets["seg"]):
            assert case.seg is not None
            found, truth = prediction.regions > 0.5, to_regions(case.seg)
            by_region.append(dice(found, truth))
            extents[case.key] = _extents(by_region[-1], found, truth, case.spacing)
        markers[case.key] = {task: p.tolist() for task, p in prediction.markers.items()}
        for task, probability in prediction.markers.items():
            if not math.isnan(target := case.targets[task]):
                by_task.setdefault(task, []).append(log_loss(probability, target))
    overlaps = torch.stack(by_region).mean(0).tolist() if by_region else []
    mean_loss = {task: sum(values) / len(values) for task, values in by_task.items()}
    score = sum(overlaps) / len(overlaps) if overlaps else 0.0
    if mean_loss:
        score -= config.train.marker_weight * sum(mean_loss.values()) / len(mean_loss)
    return Validated(
        score=score,
        dice=dict(zip(REGIONS, overlaps, strict=True)) if overlaps else {},
        log_loss=mean_loss,
        markers=markers,
        extents=extents,
    )


def _extents(
    overlaps: Tensor, found: Tensor, truth: Tensor, spacing: Tensor
) -> dict[str, dict[str, float]]:
    """Region → fields of an `Extent`, of masks [R, D, H, W] with their Dice [R]."""
    rows = torch.stack([overlaps, volumes_ml(found, spacing), volumes_ml(truth, spacing)], 1)
    return {
        region: asdict(Extent(*row)) for region, row in zip(REGIONS, rows.tolist(), strict=True)
    }


def log_loss(probability: Tensor, target: float) -> float:
    """Negative log likelihood of a label.

    Args:
        probability: [1] of mutant or codeleted, or [3] by WHO grade.
        target: 0 or 1, or a WHO grade.
    """
    p = probability.clamp(1e-7, 1 - 1e-7)
    classes = torch.cat([1 - p, p]) if len(p) == 1 else p
    index = int(target) if len(p) == 1 else GRADES.index(target)
    return -float(classes[index].log())
