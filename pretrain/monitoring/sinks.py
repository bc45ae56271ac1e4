"""Where curves and pictures go: TensorBoard, and Weights & Biases or MLflow where asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from gliomoe.pretrain.monitoring.charts import LAYOUT


class Sink(Protocol):
    """Takes what a run shows."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values by name, `group/name`."""
        ...

    def image(self, name: str, picture: Tensor, step: int) -> None:
        """A picture [3, H, W] from 0 to 1."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files in the run's folder.

    Args:
        run: Folder of the run.
        start: Steps done; later entries of a process before are dropped.
    """

    def __init__(self, run: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)
        self._writer.add_custom_scalars(LAYOUT)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, picture: Tensor, step: int) -> None:
        """A picture."""
        self._writer.add_image(name, picture, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
