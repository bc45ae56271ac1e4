"""One optimizer step, from the parts of its batch to what happened."""

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from gliomoe.models.moe.balance import update_bias
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.engine.schedule import learning_rate
from gliomoe.pretrain.faults.health import Health
from gliomoe.pretrain.faults.progress import Progress
from gliomoe.pretrain.faults.routers import Routers
from gliomoe.pretrain.monitoring.monitor import StepReport
from gliomoe.pretrain.monitoring.probe import Probe
from gliomoe.pretrain.monitoring.stopwatch import Stopwatch
from gliomoe.pretrain.samples.loading import Parts
from gliomoe.pretrain.samples.views import Views, make_views

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """Everything that the loop needs."""

    config: PretrainConfig
    engine: Engine
    parts: Parts
    """This rank's parts of the batches, from step `start` on."""
    start: int
    """Steps done before."""
    about: dict[str, Any]
    """Entries of every checkpoint's manifest."""
    progress: Progress
    """What this process is at."""
    health: Health
    """Judges each step."""
    routers: Routers
    """Follows the use of the experts."""
    probe: Probe | None = None
    """What is asked of the encoder now and then."""


def train_step(training: Training, step: int) -> tuple[StepReport, Views, tuple[str, ...]]:
    """One optimizer step over all its parts.

    Returns:
        What happened, the last part's views, and, if it was skipped, the studies to look at.
    """
    config, engine = training.config, training.engine
    begun = time.perf_counter() - training.parts.waited
    outcomes: list[dict[str, torch.Tensor]] = []
    keys: list[tuple[str, ...]] = []
    damaged: list[str] = []
    statistics = distributed.keep_statistics(engine.module)
    watch = Stopwatch(engine.device)
    for part in range(config.engine.accumulation):
        pairs = training.parts.take()
        watch.mark("")
        keys.append(pairs.boxes.keys)
        damaged += pairs.damaged
        patch_size = engine.module.encoder.patch_size
        views = make_views(pairs.to(engine.device), config.views.size, patch_size, config.mask)
        watch.mark("views")
        outcome = engine.forward(views)
        watch.mark("forward")
        outcomes.append({name: value.detach().float() for name, value in outcome.items()})
        loss, last = outcome["loss"], part == config.engine.accumulation - 1
        if last:
            mean = _mean(outcomes)
            spike = training.health.spikes(mean["loss"])
            if spike:
                loss = loss * torch.nan  # spoils the gradients of all parts, on all ranks
        engine.backward(loss, last)
        watch.mark("backward")
    lr = learning_rate(step, config.run.steps, config.optim)
    norm = engine.step(lr)
    watch.mark("optimizer")
    use = mean.pop("expert_use", None)
    if norm is None:
        distributed.restore_statistics(statistics)  # the forward pass has moved them
    else:
        _follow(training, step, use)
    report = StepReport(
        step=step,
        losses={name: float(value) for name, value in mean.items()},
        norm=norm,
        lr=lr,
        studies=config.optim.batch,
        seconds=time.perf_counter() - begun,
        waited=training.parts.reset_clock(),
        left_out=_left_out(damaged, engine.device),
        expert_use=[] if use is None else use.tolist(),
        parts=watch.seconds(),
    )
    suspects = () if norm is not None else _suspects(outcomes, keys, spike)
    return report, views, suspects


def _follow(training: Training, step: int, use: torch.Tensor | None) -> None:
    """What follows a change of the weights: statistics of all ranks, routers' biases, teachers."""
    engine, config = training.engine, training.config
    distributed.share_statistics(engine.module)
    if config.model.overrides.get("router_bias") and use is not None:
        update_bias(engine.module.encoder, use, config.optim.bias_rate)
    engine.module.after_step(step)


def _mean(outcomes: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What a step's parts gave, averaged over them and, in one message, over the ranks."""
    means = {name: torch.stack([part[name] for part in outcomes]).mean(0) for name in outcomes[0]}
    joint = distributed.mean(torch.cat([value.flatten() for value in means.values()]))
    pieces = joint.split([value.numel() for value in means.values()])
    return {
        name: piece.view(value.shape)
        for (name, value), piece in zip(means.items(), pieces, strict=True)
    }


def _left_out(damaged: list[str], device: torch.device) -> tuple[str, ...]:
    """Messages about damaged studies, of all ranks; each rank says its own."""
    for message in damaged:
        logger.warning("left out: %s", message)
    if not distributed.total(len(damaged), device):
        return ()
    return tuple(message for found in distributed.gather_objects(damaged) for message in found)


def _suspects(
    outcomes: list[dict[str, torch.Tensor]], keys: list[tuple[str, ...]], spike: bool
) -> tuple[str, ...]:
    """The studies to look at after a step that was skipped, the same on every rank.

    Args:
        outcomes: What this rank's parts gave.
        keys: The studies of each part.
        spike: Whether the step was skipped for the loss of all ranks.

    Returns:
        After a spike, studies of the rank with the highest loss; else those of parts without a
        finite loss; all of the step if only the gradients were not finite.
    """
    losses = [float(outcome["loss"]) for outcome in outcomes]
    ranks = distributed.gather_objects((losses, keys))
    if spike:
        chosen = max(ranks, key=lambda rank: sum(rank[0]))[1]
    else:
        parts = [part for losses, keys in ranks for part in zip(losses, keys, strict=True)]
        spoiled = [keys for loss, keys in parts if not math.isfinite(loss)]
        chosen = spoiled or [keys for _, keys in parts]
    return tuple(key for part in chosen for key in part)
