"""MLflow, through its own package; a continued run goes on in the same place."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# A server that does not answer must not hold up the training: one short try.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from torch import Tensor

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import atomic_write

logger = logging.getLogger(__name__)

_ID = "mlflow_id"
_LONGEST = 6000
"""Characters of a parameter."""


class MLflow:
    """One run of an experiment, at the server or in the folder of `MLFLOW_TRACKING_URI`.

    Args:
        run: Folder of the run; the id lies there.
        experiment: Name of the experiment, made if need be.
        about: The run's configuration as plain values.

    Raises:
        UsageError: If the server cannot be reached or refuses.
    """

    def __init__(self, run: Path, experiment: str, about: dict[str, Any]):
        kept = run / _ID
        try:
            self._client = MlflowClient()
            if kept.is_file():
                self._id = kept.read_text("utf-8")
                self._client.update_run(self._id, status="RUNNING")
                return
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            self._id = self._client.create_run(number, run_name=run.name).info.run_id
            params = [Param(key, value[:_LONGEST]) for key, value in _flat(about)]
            self._client.log_batch(self._id, params=params)
        except (MlflowException, ImportError) as error:
            raise UsageError(f"monitor.mlflow: {error}; see MLFLOW_TRACKING_URI") from error
        with atomic_write(kept, "w") as file:
            file.write(self._id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values by name."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        _send(lambda: self._client.log_batch(self._id, metrics=metrics))

    def image(self, name: str, picture: Tensor, step: int) -> None:
        """A picture."""
        pixels = (picture * 255).byte().permute(1, 2, 0).numpy()
        key = name.replace("/", "_")
        _send(lambda: self._client.log_image(self._id, pixels, key=key, step=step))

    def close(self) -> None:
        """Say that it is over; a continuation says otherwise."""
        _send(lambda: self._client.set_terminated(self._id))


def _send(request: Callable[[], object]) -> None:
    """Send something; a server that is away costs its curves, not the training."""
    try:
        request()
    except MlflowException as error:
        logger.warning("MLflow did not take what was logged: %s", error)


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values of a configuration."""
    rows = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
