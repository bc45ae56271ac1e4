"""Where curves and pictures go: TensorBoard, and Weights & Biases or MLflow where asked for."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.monitoring.charts import LAYOUT
from gliomoe.pretrain.sections import MonitorConfig


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


def require_packages(config: MonitorConfig) -> None:
    """Refuse, before a run begins, what cannot be logged to.

    Raises:
        UsageError: If a package that is asked for is not installed.
    """
    for option, package, install in (
        ("wandb", "wandb", "wandb"),
        ("mlflow", "mlflow", "mlflow-skinny"),
    ):
        if getattr(config, option) and find_spec(package) is None:
            raise UsageError(
                f"monitor.{option} needs the package {package}: pip install {install}, or leave "
                "the option out"
            )


def open_sinks(config: MonitorConfig, run: Path, start: int, about: dict[str, Any]) -> list[Sink]:
    """TensorBoard and whatever else is asked for.

    Args:
        config: What is asked for.
        run: Folder of the run; ids of what is logged elsewhere are kept in it.
        start: Steps done.
        about: The run's configuration as plain values.

    Raises:
        UsageError: If a service refuses.
    """
    sinks: list[Sink] = [TensorBoard(run, start)]
    if config.wandb:
        from gliomoe.pretrain.monitoring.wandb_sink import WeightsAndBiases

        sinks.append(WeightsAndBiases(run, config.wandb, about))
    if config.mlflow:
        from gliomoe.pretrain.monitoring.mlflow_sink import MLflow

        sinks.append(MLflow(run, config.mlflow, about))
    return sinks
