"""What a student learns from a fine-tuned teacher: its probabilities, beside the labels.

The teacher answers on the very crop that the student sees, augmented as it is, in evaluation mode
(Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent"). An
ensemble teaches by the mean of its members' probabilities (Hinton et al. 2015).
Shapes: B studies, R regions, D H W voxels, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.finetune.calibration import scale
from gliomoe.finetune.losses import LossConfig, dice_loss
from gliomoe.models.features import Predictions
from gliomoe.models.heads.activation import class_logits, probabilities
from gliomoe.models.model import Model


@dataclass(frozen=True)
class DistilConfig:
    """How a teacher is followed; it takes part only with `--teacher`."""

    weight: float = 1.0
    """Of the teacher's part of the loss, beside that of the labels."""
    temperature: float = 2.0
    """At which markers are compared (Hinton et al. 2015); above 1 softens both sides."""
    data: Path | None = None
    """Shard set or raw folder of studies that the teacher alone speaks about; labels in it are not
    looked at, and cases of the run are left out."""
    share: float = 0.5
    """Part of the crops that come from `distil.data`."""

    def __post_init__(self) -> None:
        """Refuse what cannot teach."""
        if self.weight <= 0 or self.temperature <= 0:
            raise ValueError("distil.weight and distil.temperature must be positive")
        if not 0 < self.share < 1:
            raise ValueError("distil.share must lie between 0 and 1, without them")


@dataclass(frozen=True)
class Answers:
    """What a teacher says about a batch."""

    regions: Tensor | None
    """[B, R, D, H, W] float32 probabilities, or None without the task `seg`."""
    markers: dict[str, Tensor]
    """Task → [B, 1] or [B, C] float32 probabilities."""


@torch.no_grad()
def ask(teacher: Sequence[Model], batch: StudyBatch) -> Answers:
    """The mean answer of a teacher's members, which are in evaluation mode."""
    said = [model(batch) for model in teacher]
    markers = [
        {task: probabilities(logits, one.activation) for task, logits in one.markers.items()}
        for one in said
    ]
    segs = [one.seg.float().sigmoid() for one in said if one.seg is not None]
    return Answers(
        regions=torch.stack(segs).mean(0) if segs else None,
        markers={task: torch.stack([m[task] for m in markers]).mean(0) for task in markers[0]},
    )


def region_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """KL(teacher ‖ student), each region being two classes, mean over voxels and regions.

    The pixel-wise distillation of Liu et al. 2019, "Structured Knowledge Distillation for Semantic
    Segmentation", for regions that overlap.

    Args:
        logits: [B, R, D, H, W] of the student.
        wanted: The same shape, the teacher's probabilities.
    """
    entropy = torch.special.entr(wanted) + torch.special.entr(1 - wanted)
    return F.binary_cross_entropy_with_logits(logits.float(), wanted) - entropy.mean()


def marker_divergence(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of softened classes, mean over studies (Hinton et al. 2015, §2).

    T² keeps the size of the gradients when T changes.

    Args:
        logits: [B, 1] or [B, C] of the student, whose probabilities are a softmax; 0 if B is 0.
        wanted: The same shape, the teacher's probabilities at temperature 1.
        temperature: T.
    """
    if not len(logits):
        return logits.sum()
    soft = scale(wanted, temperature)
    soft = torch.cat([1 - soft, soft], 1) if soft.shape[1] == 1 else soft
    student = (class_logits(logits.float()) / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, soft, reduction="batchmean")


def distil_losses(
    predictions: Predictions, answers: Answers, config: DistilConfig, weights: LossConfig
) -> dict[str, Tensor]:
    """The teacher's part of the loss, mixed as that of the labels is.

    Regions: Dice + δ · KL. The Dice loss has squared denominators, |p - q|² / (|p|² + |q|²), so
    that it is smallest where the student says what the teacher says, soft as that may be.
    Markers are compared on crops in which the teacher sees tumour, as labels are.

    Args:
        predictions: Of the student; its tasks are among the teacher's.
        answers: Of the teacher, on the same batch.
        config: Temperature.
        weights: δ and the weight of the markers.

    Returns:
        `distil_dice`, `distil_kl` and `distil_<marker>` as far as they apply, and `distil`, their
        weighted sum.
    """
    parts: dict[str, Tensor] = {}
    total = predictions.features.pooled.new_zeros((), dtype=torch.float32)
    if predictions.seg is not None:
        assert answers.regions is not None  # the tasks were compared before training
        parts["distil_dice"] = dice_loss(predictions.seg.float().sigmoid(), answers.regions)
        parts["distil_kl"] = region_divergence(predictions.seg, answers.regions)
        total = total + parts["distil_dice"] + weights.cross_entropy * parts["distil_kl"]
    for task, logits in predictions.markers.items():
        told = slice(None) if answers.regions is None else _sees_tumour(answers.regions)
        loss = marker_divergence(logits[told], answers.markers[task][told], config.temperature)
        parts[f"distil_{task}"] = loss
        total = total + weights.markers / len(predictions.markers) * loss
    return {**parts, "distil": total}


def _sees_tumour(regions: Tensor) -> Tensor:
    """[B] bool: some voxel belongs to some region."""
    return regions.flatten(1).gt(0.5).any(1)
