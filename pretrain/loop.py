"""The training loop and its step."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gliomoe.data_shards.errors import DataError
from gliomoe.models.moe.balance import update_bias
from gliomoe.pretrain import checkpoints, distributed
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import Engine
from gliomoe.pretrain.monitor import Monitor, StepReport
from gliomoe.pretrain.pictures import reconstruction_picture
from gliomoe.pretrain.schedule import learning_rate
from gliomoe.pretrain.signals import StopFlag
from gliomoe.pretrain.views import PairBatch, Views, make_views

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """Everything that the loop needs."""

    config: PretrainConfig
    engine: Engine
    parts: Iterator[PairBatch]
    """This rank's parts of the batches, from step `start` on."""
    start: int
    """Steps done before."""
    about: dict[str, Any]
    """Entries of every checkpoint's manifest."""


def train(training: Training, stop: StopFlag) -> bool:
    """Train until the last step or until asked to stop.

    Returns:
        True if the run is finished, False if it was interrupted and can be continued.

    Raises:
        DataError: If too many steps in a row had a loss that is not finite.
    """
    config, engine = training.config, training.engine
    run, first = config.run, distributed.world()[0] == 0
    saved, bad = training.start, 0
    with Monitor(run.out, training.start, run.steps, config.monitor.log_every, first) as monitor:
        for step in range(training.start, run.steps):
            stopping = distributed.any_rank(bool(stop), engine.device)
            if saved < step and (stopping or step % run.checkpoint_every == 0):
                save(training, step)
                saved = step
            if stopping:
                logger.info("stopped at step %d; the same command continues", step)
                return False
            report, views, keys = train_step(training, step)
            monitor.show(report)
            bad = count_bad(bad, report, keys, run.bad_steps)
            show(monitor, engine, views, step + 1, config)
        save(training, run.steps)
    return True


def train_step(training: Training, step: int) -> tuple[StepReport, Views, tuple[str, ...]]:
    """One optimizer step over all its parts.

    Returns:
        What happened, the last part's views, and the studies whose loss was not finite.
    """
    config, engine = training.config, training.engine
    begun, waited = time.perf_counter(), 0.0
    outcomes: list[dict[str, torch.Tensor]] = []
    spoiled: list[str] = []
    damaged = 0
    for part in range(config.engine.accumulation):
        asked = time.perf_counter()
        pairs = next(training.parts)
        waited += time.perf_counter() - asked
        for message in pairs.damaged:
            logger.warning("left out: %s", message)
        damaged += len(pairs.damaged)
        patch_size = engine.module.encoder.patch_size
        views = make_views(pairs.to(engine.device), config.views.size, patch_size, config.mask)
        outcome = engine.forward(views)
        if not torch.isfinite(outcome["loss"]):
            spoiled += pairs.boxes.keys
        engine.backward(outcome["loss"], last=part == config.engine.accumulation - 1)
        outcomes.append({name: value.detach().float() for name, value in outcome.items()})
    lr = learning_rate(step, config.run.steps, config.optim)
    norm = engine.step(lr)
    mean = {
        name: distributed.mean(torch.stack([outcome[name] for outcome in outcomes]).mean(0))
        for name in outcomes[0]
    }
    use = mean.pop("expert_use", None)
    if config.model.overrides.get("router_bias") and use is not None and norm is not None:
        update_bias(engine.module.encoder, use, config.optim.bias_rate)
    report = StepReport(
        step=step,
        losses={name: float(value) for name, value in mean.items()},
        norm=norm,
        lr=lr,
        studies=config.optim.batch,
        seconds=time.perf_counter() - begun,
        waited=waited,
        damaged=distributed.total(damaged, engine.device),
        expert_use=[] if use is None else use.tolist(),
    )
    return report, views, tuple(spoiled or (pairs.boxes.keys if norm is None else ()))


def count_bad(bad: int, report: StepReport, keys: tuple[str, ...], limit: int) -> int:
    """Count steps in a row that were skipped; stop at the limit.

    Raises:
        DataError: If it is reached.
    """
    if report.norm is not None:
        return 0
    studies = ", ".join(keys) or "studies of another process"
    logger.warning("step %d skipped, loss or gradient not finite: %s", report.step, studies)
    if bad + 1 == limit:
        raise DataError(
            f"{limit} steps in a row with a loss or gradient that is not finite, the last with "
            f"{studies}; look at these studies, or lower optim.lr"
        )
    return bad + 1


def save(training: Training, step: int) -> None:
    """Write a checkpoint."""
    config = training.config
    checkpoints.save(training.engine, config.run.out, step, training.about, config.run.keep)


def show(monitor: Monitor, engine: Engine, views: Views, step: int, config: PretrainConfig) -> None:
    """Weights of the sequences and, every so often, a picture."""
    if step % config.monitor.log_every == 0:
        monitor.show_fusion(engine.module.encoder, step)
    every = config.monitor.pictures_every
    if every and step % every == 0 and monitor.active:
        filled = engine.module.picture(views)
        if filled is None:
            return
        patch_size = engine.module.encoder.patch_size
        monitor.show_picture(reconstruction_picture(views, filled, patch_size), step)
