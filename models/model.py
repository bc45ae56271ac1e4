"""`Model`: an encoder with the heads of its tasks."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Predictions
from gliomoe.models.heads.markers import MARKERS, MarkerHead
from gliomoe.models.heads.segmentation import SegmentationHead
from gliomoe.models.tissue import Batch

TASKS = ("seg", *MARKERS)
"""`seg` gives the overlapping regions ET, TC, WT; the others are labels of a whole case."""


class Model(nn.Module):
    """Encoder and heads.

    Attributes:
        encoder: What pretraining trains.
        heads: By kind, `seg` and `markers`; empty without tasks.
        tasks: The tasks, in the order of `TASKS`.
        config: Name, tasks and settings, JSON-able; `create_model` rebuilds the model from it.
    """

    def __init__(self, encoder: Encoder, tasks: Sequence[str], config: dict[str, Any]):
        super().__init__()
        self.encoder: Encoder = encoder
        self.tasks = check_tasks(tasks)
        self.config = {**config, "tasks": list(self.tasks)}
        self.heads = nn.ModuleDict()
        if "seg" in self.tasks:
            self.heads["seg"] = SegmentationHead(encoder.channels)
        if markers := [task for task in self.tasks if task in MARKERS]:
            self.heads["markers"] = MarkerHead(
                markers,
                width=encoder.width,
                detail=encoder.channels[0],
                patch_size=encoder.patch_size,
                gated="seg" in self.tasks,
            )

    def forward(self, batch: Batch) -> Predictions:
        """Predictions for all tasks of the model, from all tissue of the batch."""
        features = self.encoder(batch)
        seg = self.heads["seg"](features.pyramid) if "seg" in self.heads else None
        markers = self.heads["markers"](features, seg) if "markers" in self.heads else {}
        return Predictions(seg=seg, markers=markers, features=features)


def check_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks in the order of `TASKS`, each once; `ModelError` if one is unknown."""
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise ModelError(f"unknown task {unknown[0]!r}; known: {', '.join(TASKS)}")
    return tuple(task for task in TASKS if task in tasks)
