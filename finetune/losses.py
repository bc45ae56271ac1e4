"""What fine-tuning minimises: segmentation, markers and routing, unknown labels masked.

L = Dice + δ · CE + markers + γ · routing (MAGPIE eq. 10–12). Dice is of overlapping regions; the
cross-entropy is binary for them, or over the classes of systems that segment by softmax. Coarser
outputs count half as much with each level. All of it in float32, whatever the network ran in.
Shapes: B studies, R regions, D H W voxels, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.labels import to_regions
from gliomoe.models.features import Activation, Predictions
from gliomoe.models.heads.activation import class_logits, entmax_package
from gliomoe.models.moe.balance import routing_loss, z_loss

GRADES = (2.0, 3.0, 4.0)
"""WHO grades in the order of the logits of the task `grade`."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts."""

    cross_entropy: float = 1.0
    """δ of MAGPIE eq. 11."""
    markers: float = 0.5
    """Weight of the mean loss over the marker tasks."""
    routing: float = 0.01
    """γ of MAGPIE eq. 10."""
    router_z: float = 0.0
    """Weight of the squared size of the routers' logits (ST-MoE: 0.001)."""
    label_smoothing: float = 0.1
    """Of the marker targets."""
    focal_markers: float = 0.0
    """γ of the focal loss of markers (Lin et al. 2017: 2), which weighs cases that are hard; 0:
    cross-entropy."""
    focal_voxels: float = 0.0
    """γ of the focal loss of voxels in place of their cross-entropy."""

    def __post_init__(self) -> None:
        """Refuse exponents whose gradient is infinite where a prediction is sure."""
        if any(gamma != 0 and gamma < 1 for gamma in (self.focal_markers, self.focal_voxels)):
            raise ValueError("loss.focal_markers and loss.focal_voxels must be 0, or at least 1")


def dice_loss(probability: Tensor, truth: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Soft Dice loss with squared denominator, averaged over regions (MAGPIE eq. 12).

    Args:
        probability: [B, R, D, H, W], sums run over all voxels of the batch.
        truth: The same shape, 0 or 1.
        epsilon: Keeps an empty region finite.
    """
    p, g = probability.float(), truth.float()
    axes = (0, *range(2, p.ndim))
    overlap = 2 * (p * g).sum(axes)
    size = p.square().sum(axes) + g.square().sum(axes)
    return 1 - (overlap / (size + epsilon)).mean()


def focal_loss(
    logits: Tensor,
    classes: Tensor,
    gamma: float,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy whose terms are scaled by (1 - p) ** gamma (Lin et al. 2017, eq. 4).

    Args:
        logits: [N, C, …].
        classes: [N, …] int64.
        gamma: 0 gives `F.cross_entropy`, whose means over weights this keeps.
        class_weights: [C], None for equal weights.
        smoothing: Label smoothing towards the uniform distribution.
    """
    # Imported here: MONAI takes seconds to import, and most runs need none of its losses.
    from monai.losses.focal_loss import softmax_focal_loss

    truth = F.one_hot(classes, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    truth = (1 - smoothing) * truth + smoothing / logits.shape[1]
    each = softmax_focal_loss(logits, truth, gamma, class_weights)
    return each.sum() / (classes.numel() if class_weights is None else class_weights[classes].sum())


def region_entropy(logits: Tensor, truth: Tensor, gamma: float) -> Tensor:
    """Mean binary cross-entropy of overlapping regions, or focal loss; [B, R, D, H, W] each."""
    if not gamma:
        return F.binary_cross_entropy_with_logits(logits, truth)
    from monai.losses.focal_loss import sigmoid_focal_loss

    return sigmoid_focal_loss(logits, truth, gamma).mean()


def class_loss(logits: Tensor, seg: Tensor, gamma: float = 0.0) -> Tensor:
    """Cross-entropy over exclusive classes, or focal loss.

    Args:
        logits: [B, K, D, H, W], canonical label k in channel k.
        seg: [B, D, H, W] canonical labels.
        gamma: Of the focal loss; 0: cross-entropy.

    Raises:
        UsageError: If there is a label that the head has no class for.
    """
    highest = int(seg.max())
    if highest >= logits.shape[1]:
        raise UsageError(
            f"a segmentation has label {highest}, the model tells 0 to {logits.shape[1] - 1} "
            "apart; leave such cases out, or take a model with more classes, as mgmt_net"
        )
    if gamma:
        return focal_loss(logits.float(), seg.long(), gamma)
    return F.cross_entropy(logits.float(), seg.long())


def segmentation_losses(
    predictions: Predictions, seg: Tensor, labelled: Tensor, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Dice loss and cross-entropy of the studies with a segmentation, over all levels.

    Args:
        predictions: With `seg`, and with `deep` or `classes` where the model has them.
        seg: [B, D, H, W] canonical labels.
        labelled: [B] bool.
        gamma: Of a focal loss in place of the cross-entropy; 0: none.

    Returns:
        Two scalars, averaged over levels with weights 1, 1/2, 1/4, … of the finest.
    """
    assert predictions.seg is not None
    seg = seg[labelled]
    truth = to_regions(seg).float()
    overlaps, entropies, weights = [], [], []
    for level, output in enumerate((predictions.seg, *predictions.deep)):
        logits = output[labelled].float()
        wanted = F.interpolate(truth, logits.shape[2:]) if level else truth
        overlaps.append(dice_loss(logits.sigmoid(), wanted))
        if level == 0 and predictions.classes is not None:
            entropies.append(class_loss(predictions.classes[labelled], seg, gamma))
        else:
            entropies.append(region_entropy(logits, wanted, gamma))
        weights.append(0.5**level)
    share = truth.new_tensor(weights) / sum(weights)
    return share @ torch.stack(overlaps), share @ torch.stack(entropies)


def marker_loss(
    logits: Tensor,
    targets: Tensor,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
    activation: Activation = "softmax",
    gamma: float = 0.0,
) -> Tensor:
    """Weighted loss over the studies whose label is known; 0 if none is.

    Args:
        logits: [B, 1] for a binary marker, [B, 3] for the grade.
        targets: [B], 0 or 1, or a WHO grade; NaN is unknown.
        class_weights: [2] or [3], None for equal weights.
        smoothing: Label smoothing towards the uniform distribution, of the cross-entropy.
        activation: `softmax`: cross-entropy; `entmax15`: the loss of Peters et al. 2019, which
            is the one whose gradient is probability minus truth for it.
        gamma: Of a focal loss in place of the cross-entropy; 0: none.
    """
    known = ~torch.isnan(targets)
    logits, targets = logits[known].float(), targets[known]
    if not len(targets):
        return logits.sum()
    if logits.shape[1] == 1:
        classes = targets.long()
    else:
        classes = torch.bucketize(targets, targets.new_tensor(GRADES))
    logits = class_logits(logits)
    if activation == "softmax" and gamma:
        return focal_loss(logits, classes, gamma, class_weights, smoothing)
    if activation == "softmax":
        return F.cross_entropy(logits, classes, class_weights, label_smoothing=smoothing)
    each = entmax_package().entmax15_loss(logits, classes)
    weights = torch.ones_like(each) if class_weights is None else class_weights[classes]
    return (each * weights).sum() / weights.sum()


def prevalence_weights(counts: Mapping[float, int], task: str) -> Tensor:
    """Class weights n / (classes · n_c), so that each class present weighs alike.

    Args:
        counts: Target → number of training cases.
        task: `grade` has three classes, the others two.

    Returns:
        [2] or [3] float32; 1 for a class without cases, which never occurs as a target.
    """
    classes = GRADES if task == "grade" else (0.0, 1.0)
    present = [value for value in classes if counts.get(value, 0)]
    total = sum(counts.values())
    return torch.tensor(
        [total / (len(present) * counts[v]) if counts.get(v, 0) else 1.0 for v in classes]
    )


def losses(
    predictions: Predictions,
    batch: StudyBatch,
    config: LossConfig,
    class_weights: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """All parts of the loss and their weighted sum.

    A crop of a segmented case that shows no tumour says nothing about the markers and is left out
    of their loss; `predict_study` weighs windows by the tumour in them for the same reason.

    Args:
        predictions: The model's output.
        batch: With `seg` and `targets`; `targets["seg"]` is NaN for cases without segmentation,
            whose `seg` is not looked at.
        config: Weights.
        class_weights: Marker task → class weights.

    Returns:
        `dice`, `ce`, one entry per marker task, `routing`, `router_z`, as far as they apply, and
        `total`.
    """
    parts: dict[str, Tensor] = {}
    labelled = ~torch.isnan(batch.targets["seg"])
    total = predictions.features.pooled.new_zeros((), dtype=torch.float32)
    if predictions.seg is not None and labelled.any() and batch.seg is not None:
        parts["dice"], parts["ce"] = segmentation_losses(
            predictions, batch.seg, labelled, config.focal_voxels
        )
        total = total + parts["dice"] + config.cross_entropy * parts["ce"]
    told = _shows_tumour(batch, labelled)
    for task, logits in predictions.markers.items():
        targets = batch.targets[task].masked_fill(~told, float("nan"))
        weights = class_weights[task].to(logits.device)
        parts[task] = marker_loss(
            logits,
            targets,
            weights,
            config.label_smoothing,
            predictions.activation,
            config.focal_markers,
        )
        total = total + config.markers / len(predictions.markers) * parts[task]
    if predictions.features.routing:
        parts["routing"] = routing_loss(predictions.features.routing)
        total = total + config.routing * parts["routing"]
        if config.router_z:
            parts["router_z"] = z_loss(predictions.features.routing)
            total = total + config.router_z * parts["router_z"]
    return {**parts, "total": total}


def _shows_tumour(batch: StudyBatch, labelled: Tensor) -> Tensor:
    """[B] bool: crops with tumour, and those of cases whose tumour is not delineated."""
    if batch.seg is None:
        return ~labelled
    return ~labelled | batch.seg.flatten(1).ne(0).any(1)
