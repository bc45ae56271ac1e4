"""`Model`: an encoder with the heads of its tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Predictions
from gliomoe.models.heads.markers import MARKERS
from gliomoe.models.tissue import Batch

TASKS = ("seg", *MARKERS)
"""`seg` gives the overlapping regions ET, TC, WT; the others are labels of a whole case."""


class Model(nn.Module):
    """Encoder and heads; published systems whose heads share more than that override `forward`.

    Attributes:
        encoder: What pretraining trains.
        heads: By kind, `seg` and `markers`; empty without tasks.
        tasks: The tasks, in the order of `TASKS`.
        config: Name, tasks and settings, JSON-able; `create_model` rebuilds the model from it.
        genes: Genes that `batch.genes` must hold, in its order; empty for models of images alone.
    """

    config: Mapping[str, Any]
    genes: tuple[str, ...] = ()

    def __init__(self, encoder: Encoder, heads: Mapping[str, nn.Module], tasks: Sequence[str]):
        super().__init__()
        self.encoder: Encoder = encoder
        self.heads = nn.ModuleDict(heads)
        self.tasks = tuple(tasks)
        self.config = {}

    def forward(self, batch: Batch) -> Predictions:
        """Predictions for all tasks of the model, from all tissue of the batch."""
        features = self.encoder(batch)
        seg = self.heads["seg"](features.pyramid) if "seg" in self.heads else None
        markers = {}
        if "markers" in self.heads:
            markers = self.heads["markers"](features, seg, batch.spacing)
        return Predictions(seg=seg, markers=markers, features=features)


def check_tasks(tasks: Sequence[str], name: str, known: Sequence[str]) -> tuple[str, ...]:
    """The tasks in the order of `TASKS`, each once; `ModelError` if the model lacks one."""
    for task in tasks:
        if task not in TASKS:
            raise ModelError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
        if task not in known:
            raise ModelError(f"{name} has no task {task!r}; it has {', '.join(known)}")
    return tuple(task for task in TASKS if task in tasks)
