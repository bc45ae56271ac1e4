"""A fine-tuning run on disk: what evaluation, prediction and reports need to know of it.

RUN/run.json            configuration, versions
RUN/splits.json         which case trains and validates in which fold
RUN/label_conflicts.csv labels left out because their sources disagree, if there are any
RUN/fold_<i>/           checkpoint folder with the best weights of fold i, there once it is done
RUN/training/fold_<i>/  TensorBoard events, `result.json` (validation, with probabilities)
RUN/summary.json        validation by fold, thresholds and temperatures of the markers, and the
                        volume up to which a region is noise
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.finetune.calibration import NOT_FITTED, Temperature
from gliomoe.finetune.inference import InferenceConfig
from gliomoe.models.checkpoint import CONFIG, FINGERPRINTS, load_checkpoint, read_config
from gliomoe.models.model import Model

SUMMARY = "summary.json"
SPLITS = "splits.json"
FORMAT = 1


def fold_folder(run: Path, fold: int) -> Path:
    """The checkpoint folder of a fold."""
    return run / f"fold_{fold}"


def training_folder(run: Path, fold: int) -> Path:
    """Where a fold keeps what it needs while it trains."""
    return run / "training" / f"fold_{fold}"


@dataclass(frozen=True)
class FinetunedRun:
    """The finished folds of a run, or one fine-tuned checkpoint."""

    path: Path
    folders: tuple[Path, ...]
    """Checkpoint folders of the ensemble."""
    tasks: tuple[str, ...]
    inference: InferenceConfig
    """Windows as in training; regions that are noise on validation cases are left out."""
    preprocessing: dict[str, Any]
    """Settings of `gliomoe.data_shards.preprocess` that the cases must go through."""
    thresholds: dict[str, float | None]
    """Binary marker → decision threshold from validation cases; None: they were of one class. It
    is compared with calibrated probabilities."""
    temperatures: dict[str, Temperature]
    """Marker task → temperature from validation cases."""
    summary: dict[str, Any]
    """Content of `summary.json`; empty for a single checkpoint."""

    @classmethod
    def open(cls, path: Path, folds: Sequence[int] = ()) -> "FinetunedRun":
        """Open a run's folder, or the checkpoint folder of one fine-tuned model.

        Args:
            path: The folder.
            folds: Members of the ensemble, counted from 0; none: all finished folds of a run.

        Raises:
            UsageError: If it is neither, no fold is finished, or one of `folds` is not.
            CheckpointError: If a checkpoint's description is damaged.
        """
        if (path / CONFIG).is_file():
            if folds:
                raise UsageError(f"{path}: a single checkpoint has no folds to choose from")
            return cls._of(path, [path], {})
        if not (path / SUMMARY).is_file():
            unfinished = "; no fold is finished" if (path / SPLITS).is_file() else ""
            raise UsageError(f"{path}: neither a fine-tuned run nor a checkpoint{unfinished}")
        summary = json.loads((path / SUMMARY).read_text("utf-8"))
        finished = [fold["fold"] for fold in summary["folds"]]
        if absent := [number for number in folds if number not in finished]:
            there = ", ".join(map(str, finished))
            raise UsageError(f"{path}: fold {absent[0]} is not there or not finished, but {there}")
        members = [number for number in finished if not folds or number in folds]
        return cls._of(path, [fold_folder(path, number) for number in members], summary)

    @classmethod
    def _of(cls, path: Path, folders: Sequence[Path], summary: dict[str, Any]) -> "FinetunedRun":
        config = read_config(folders[0])
        training = config["training"]
        if training.get("kind") != "finetune":
            raise UsageError(f"{path}: not a fine-tuned model; gliomoe finetune --from {path}")
        fitted = summary.get("temperatures", training.get("temperatures", {}))
        return cls(
            path=path,
            folders=tuple(folders),
            tasks=tuple(config["model"]["tasks"]),
            inference=InferenceConfig(
                window=tuple(training["window"]),
                smallest=summary.get("smallest_ml", training.get("smallest_ml", {})),
            ),
            preprocessing=config["preprocessing"],
            thresholds=summary.get("thresholds", training["thresholds"]),
            temperatures={
                task: Temperature(**fitted[task]) if task in fitted else NOT_FITTED
                for task in config["model"]["tasks"]
                if task != "seg"
            },
            summary=summary,
        )

    def averaging(self, flips: bool, draws: int = 0) -> "FinetunedRun":
        """The run, averaging over mirror images of a study and draws of dropout or not."""
        return replace(self, inference=replace(self.inference, flips=flips, draws=draws))

    def models(self, device: torch.device | str = "cpu") -> list[Model]:
        """The ensemble, in evaluation mode."""
        return [load_checkpoint(folder).to(device).eval() for folder in self.folders]

    def seen(self) -> Seen:
        """Every study that the weights have seen, in pretraining or as a labelled case."""
        return Seen.join(Seen.read(folder / FINGERPRINTS) for folder in self.folders)
