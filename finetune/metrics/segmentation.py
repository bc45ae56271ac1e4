"""Figures of one region of one case, by MONAI, with a stated convention for empty masks.

Both masks empty: every ratio is 1 and HD95 is 0. One of them empty: every ratio is 0 and HD95 is
the diagonal of the image in mm (373.13 on the BraTS grid, the penalty of the BraTS challenge).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RATIOS = ("dice", "iou", "nsd_1mm", "nsd_2mm", "sensitivity", "precision")
FIGURES = (*RATIOS, "hd95")
"""Keys of `region_figures`; HD95 in mm. NSD is MONAI's surface Dice at 1 and 2 mm."""


@dataclass(frozen=True)
class RegionFigures:
    """How well one region was found."""

    values: dict[str, float]
    """Keys `FIGURES`."""
    empty: str
    """`none`, `truth`, `prediction` or `both`: which of the masks is empty."""


def region_figures(
    prediction: Tensor, truth: Tensor, spacing: Sequence[float] | Tensor
) -> RegionFigures:
    """All figures of one region.

    Args:
        prediction: [D, H, W] bool.
        truth: [D, H, W] bool.
        spacing: Voxel size in mm along D, H, W.
    """
    # Imported here: MONAI takes seconds to import, and training needs Dice alone.
    from monai.metrics import get_confusion_matrix
    from monai.metrics.utils import get_edge_surface_distance

    mm = [float(size) for size in spacing]
    has = bool(prediction.any()), bool(truth.any())
    if has != (True, True):
        same = has[0] == has[1]
        diagonal = float(np.linalg.norm(np.array(truth.shape) * np.array(mm)))
        values = {**dict.fromkeys(RATIOS, float(same)), "hd95": 0.0 if same else diagonal}
        empty = "both" if same else ("truth" if has[0] else "prediction")
        return RegionFigures(values, empty)
    p, g = prediction[None, None].float(), truth[None, None].float()
    tp, fp, _, fn = get_confusion_matrix(p, g)[0, 0].tolist()
    # The slow part: HD95 and both NSD share one computation of MONAI's distances.
    with warnings.catch_warnings():
        # MONAI warns of an argument that it passes to itself.
        warnings.simplefilter("ignore", FutureWarning)
        _, distances, _ = get_edge_surface_distance(prediction, truth, spacing=mm, symmetric=True)
    surface = torch.cat(distances)
    values = {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "nsd_1mm": (surface <= 1.0).double().mean().item(),
        "nsd_2mm": (surface <= 2.0).double().mean().item(),
        "sensitivity": tp / (tp + fn),
        "precision": tp / (tp + fp),
        "hd95": max(one_way.quantile(0.95).item() for one_way in distances),
    }
    return RegionFigures(values, "none")


def dice(prediction: Tensor, truth: Tensor) -> Tensor:
    """Dice of boolean masks over the last three axes, 1 where both are empty."""
    axes = (-3, -2, -1)
    size = prediction.sum(axes) + truth.sum(axes)
    overlap = 2 * (prediction & truth).sum(axes)
    return torch.where(size > 0, overlap / size.clamp(min=1), 1.0)
