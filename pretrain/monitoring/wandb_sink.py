"""Weights & Biases, through its own package; a continued run goes on in the same place."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from torch import Tensor

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import atomic_write

_ID = "wandb_id"


class WeightsAndBiases:
    """One run of a project.

    Args:
        run: Folder of the run; the id lies there, and what is not sent yet.
        project: Name of the project.
        about: The run's configuration as plain values.

    Raises:
        UsageError: If the service refuses, for want of a key say.
    """

    def __init__(self, run: Path, project: str, about: dict[str, Any]):
        kept = run / _ID
        if not kept.is_file():
            with atomic_write(kept, "w") as file:
                file.write(secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=project,
                id=kept.read_text("utf-8"),
                resume="allow",
                name=run.name,
                dir=run,
                config=about,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            raise UsageError(f"monitor.wandb: {error}") from error
        # Its own count of steps only goes up; a continued run may go back to a checkpoint.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values by name."""
        self._run.log({**values, "step": step})

    def image(self, name: str, picture: Tensor, step: int) -> None:
        """A picture."""
        pixels = (picture * 255).byte().permute(1, 2, 0).numpy()
        self._run.log({name: wandb.Image(pixels), "step": step})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
