"""One optimizer step, from the parts of its batch to what happened."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gliomoe.models.moe.balance import update_bias
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.engine.schedule import learning_rate
from gliomoe.pretrain.monitoring.monitor import StepReport
from gliomoe.pretrain.monitoring.probe import Probe
from gliomoe.pretrain.monitoring.stopwatch import Stopwatch
from gliomoe.pretrain.samples.views import PairBatch, Views, make_views

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
    probe: Probe | None = None
    """What is asked of the encoder now and then."""


def train_step(training: Training, step: int) -> tuple[StepReport, Views, tuple[str, ...]]:
    """One optimizer step over all its parts.

    Returns:
        What happened, the last part's views, and the studies whose loss was not finite.
    """
    config, engine = training.config, training.engine
    begun, waited = time.perf_counter(), 0.0
    outcomes: list[dict[str, torch.Tensor]] = []
    spoiled: list[str] = []
    damaged, watch = 0, Stopwatch(engine.device)
    for part in range(config.engine.accumulation):
        asked = time.perf_counter()
        pairs = next(training.parts)
        waited += time.perf_counter() - asked
        watch.mark("")
        for message in pairs.damaged:
            logger.warning("left out: %s", message)
        damaged += len(pairs.damaged)
        patch_size = engine.module.encoder.patch_size
        views = make_views(pairs.to(engine.device), config.views.size, patch_size, config.mask)
        watch.mark("views")
        outcome = engine.forward(views)
        watch.mark("forward")
        if not torch.isfinite(outcome["loss"]):
            spoiled += pairs.boxes.keys
        engine.backward(outcome["loss"], last=part == config.engine.accumulation - 1)
        watch.mark("backward")
        outcomes.append({name: value.detach().float() for name, value in outcome.items()})
    lr = learning_rate(step, config.run.steps, config.optim)
    norm = engine.step(lr)
    watch.mark("optimizer")
    distributed.share_statistics(engine.module)
    mean = {
        name: distributed.mean(torch.stack([outcome[name] for outcome in outcomes]).mean(0))
        for name in outcomes[0]
    }
    use = mean.pop("expert_use", None)
    if config.model.overrides.get("router_bias") and use is not None and norm is not None:
        update_bias(engine.module.encoder, use, config.optim.bias_rate)
    if norm is not None:
        engine.module.after_step(step)
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
        parts=watch.seconds(),
    )
    return report, views, tuple(spoiled or (pairs.boxes.keys if norm is None else ()))
