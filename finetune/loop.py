"""Training of one fold: epochs of crops, validation on whole studies, early stop, exact resume.

Whatever is random is seeded by (seed, fold, step or epoch), so that the state on disk needs no
generator: a fold that was interrupted ends with the same weights as one that was not (CPU, fp32).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gliomoe.data_shards import augment
from gliomoe.data_shards.batch import StudyBatch, collate
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.files import atomic_write
from gliomoe.data_shards.order import seed_for
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.dataset import CropDataset, MixedCrops
from gliomoe.finetune.distil import ask, distil_losses
from gliomoe.finetune.freeze import train_mode
from gliomoe.finetune.losses import losses
from gliomoe.finetune.optim import learning_rate_factor, make_optimizer, set_learning_rate
from gliomoe.finetune.precision import autocast
from gliomoe.finetune.progress import FoldBar
from gliomoe.finetune.validation import Validated, ValidationCase, validate
from gliomoe.models.model import Model

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldData:
    """What one fold learns from and is judged by."""

    number: int
    train: CropDataset | MixedCrops
    validation: Sequence[ValidationCase]
    class_weights: Mapping[str, Tensor]
    """Marker task → class weights."""
    teacher: Sequence[Model] = ()
    """Models on the student's device, in evaluation mode, whose mean is learned beside labels."""


@dataclass
class Progress:
    """How far a fold has come."""

    epoch: int = 0
    """Epochs done."""
    best_epoch: int = 0
    """Epochs done when the best weights were seen."""
    best: dict[str, Any] = field(default_factory=dict)
    """The validation of those weights, empty before the first."""

    @property
    def best_score(self) -> float:
        """Validation score of the best weights."""
        return self.best.get("score", -math.inf)


def train_fold(
    model: Model, data: FoldData, config: FinetuneConfig, folder: Path, row: int = 0
) -> Validated:
    """Train a fold, or go on with it; `model` ends with the best weights.

    Args:
        model: On the device it shall train on, parts of it frozen or not.
        data: Crops, validation cases and class weights.
        config: The run's configuration.
        folder: Where `state.pt`, `best.pt` and TensorBoard's events are kept.
        row: Of the bar in a terminal.

    Returns:
        The validation of the best weights.

    Raises:
        DataError: If the loss is not finite.
    """
    from torch.utils.tensorboard import SummaryWriter

    optimizer = make_optimizer(model, config.optim)
    progress = _resume(model, optimizer, folder)
    steps = config.train.steps_per_epoch or math.ceil(len(data.train) / config.train.batch)
    name = f"fold {data.number + 1}/{config.folds}"
    bar = FoldBar(name, config.train.epochs, steps, progress.epoch, row)
    with closing(bar), SummaryWriter(str(folder), purge_step=progress.epoch * steps) as writer:
        while not _finished(progress, config):
            train_epoch(model, optimizer, data, config, progress.epoch, bar, writer)
            progress.epoch += 1
            if progress.epoch % config.train.validate_every == 0 or _last(progress, config):
                _validate(model, data, config, progress, folder, writer, progress.epoch * steps)
                bar.validated(progress.epoch, progress.best_score)
            _save(folder / "state.pt", _state(model, optimizer, progress))
    model.load_state_dict(_load(folder / "best.pt", model))
    return Validated(**progress.best)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: FoldData,
    config: FinetuneConfig,
    epoch: int,
    bar: FoldBar,
    writer: "SummaryWriter",
) -> None:
    """All optimiser steps of one epoch."""
    train_mode(model)
    torch.manual_seed(seed_for(config.seed, "epoch", data.number, epoch))
    steps = config.train.steps_per_epoch or math.ceil(len(data.train) / config.train.batch)
    first = epoch * steps
    numbers = range(first * config.train.batch, (first + steps) * config.train.batch)
    loader = DataLoader(
        data.train,
        batch_size=config.train.batch,
        sampler=numbers,
        collate_fn=collate,
        num_workers=config.train.workers,
    )
    for step, batch in enumerate(loader, start=first):
        factor = learning_rate_factor(step, steps * config.train.epochs, config.optim)
        set_learning_rate(optimizer, factor)
        parts = train_step(model, optimizer, batch, data, config, step)
        for name, value in parts.items():
            writer.add_scalar(f"loss/{name}", value, step)
        writer.add_scalar("learning_rate", factor * config.optim.lr, step)
        bar.step(parts["total"])


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: StudyBatch,
    data: FoldData,
    config: FinetuneConfig,
    step: int,
) -> dict[str, float]:
    """One optimiser step; returns the parts of the loss."""
    device = next(model.parameters()).device
    batch = _augmented(batch.to(device), config, data.number, step)
    with autocast(config.train.precision, device):
        answers = ask(data.teacher, batch) if data.teacher else None
        predictions = model(batch)
    parts = losses(predictions, batch, config.loss, data.class_weights)
    if answers is not None:
        taught = distil_losses(predictions, answers, config.distil, config.loss)
        parts = {
            **parts,
            **taught,
            "total": parts["total"] + config.distil.weight * taught["distil"],
        }
    if not torch.isfinite(parts["total"]):
        raise DataError(
            f"fold {data.number}, step {step}: the loss is {parts['total'].item()} "
            f"(studies {', '.join(batch.keys)}); look at them, or lower --optim.lr"
        )
    optimizer.zero_grad(set_to_none=True)
    parts["total"].backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
    optimizer.step()
    return {name: float(value.detach()) for name, value in parts.items()}


def _augmented(batch: StudyBatch, config: FinetuneConfig, fold: int, step: int) -> StudyBatch:
    """The batch with MAGPIE's augmentation, drawn for this step."""
    generator = torch.Generator().manual_seed(seed_for(config.seed, "augment", fold, step))
    volumes = torch.bincount(batch.study, minlength=batch.studies).tolist()
    size = batch.voxels.shape[2:]
    draws = [
        augment.draw(config.augment, size, spacing, count, generator)
        for spacing, count in zip(batch.spacing.cpu(), volumes, strict=True)
    ]
    return augment.augment(batch, draws)


def _validate(
    model: nn.Module,
    data: FoldData,
    config: FinetuneConfig,
    progress: Progress,
    folder: Path,
    writer: "SummaryWriter",
    step: int,
) -> None:
    """Judge the weights, and keep them if they are the best so far."""
    validated = validate(model, data.validation, config)
    for name, value in validated.scalars().items():
        writer.add_scalar(f"validation/{name}", value, step)
    if validated.score > progress.best_score:
        progress.best, progress.best_epoch = asdict(validated), progress.epoch
        # Before the state that refers to it: an interruption between the two repeats an epoch.
        _save(folder / "best.pt", model.state_dict())


def _finished(progress: Progress, config: FinetuneConfig) -> bool:
    """Whether all epochs are done or the score has not risen for too long."""
    waited = progress.epoch - progress.best_epoch
    return _last(progress, config) or (bool(progress.best) and waited >= config.train.patience)


def _last(progress: Progress, config: FinetuneConfig) -> bool:
    return progress.epoch >= config.train.epochs


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> dict:
    """All that the next epoch depends on."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Progress:
    """Load the state of an interrupted fold, if there is one."""
    path = folder / "state.pt"
    if not path.is_file():
        return Progress()
    state = _load(path, model)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    progress = Progress(**state["progress"])
    log.info("%s: going on after epoch %d", folder.name, progress.epoch)
    return progress


def _save(path: Path, content: Any) -> None:
    with atomic_write(path) as file:
        torch.save(content, file)


def _load(path: Path, model: nn.Module) -> Any:
    """Tensors and plain values of the run's own folder; never other pickled objects."""
    device = next(model.parameters()).device
    return torch.load(path, map_location=device, weights_only=True)
