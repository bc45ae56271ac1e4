"""The heads of models that are an encoder and nothing special on top of it."""

from collections.abc import Sequence

from torch import nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.heads.markers import MARKERS, MarkerHead
from gliomoe.models.heads.segmentation import SegmentationHead


def standard_heads(
    encoder: Encoder, tasks: Sequence[str], segmentation: nn.Module | None = None
) -> dict[str, nn.Module]:
    """Heads by kind, `seg` and `markers`, as far as the tasks ask for them.

    Args:
        encoder: For its widths.
        tasks: Of `TASKS`.
        segmentation: Head from a pyramid to region logits; None: `SegmentationHead`.
    """
    heads: dict[str, nn.Module] = {}
    if "seg" in tasks:
        heads["seg"] = segmentation or SegmentationHead(encoder.channels)
    if markers := [task for task in tasks if task in MARKERS]:
        heads["markers"] = MarkerHead(
            markers,
            width=encoder.width,
            detail=encoder.channels[0],
            patch_size=encoder.patch_size,
            gated="seg" in tasks,
        )
    return heads
