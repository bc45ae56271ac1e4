"""The training loop."""

import logging
from dataclasses import replace

from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.faults.damaged import Damaged
from gliomoe.pretrain.faults.signals import StopFlag
from gliomoe.pretrain.monitoring.monitor import Monitor
from gliomoe.pretrain.monitoring.pictures import reconstruction_picture
from gliomoe.pretrain.samples.views import Views
from gliomoe.pretrain.step import Training, train_step

logger = logging.getLogger(__name__)


def train(training: Training, stop: StopFlag) -> bool:
    """Train until the last step or until asked to stop.

    Returns:
        True if the run is finished, False if it was interrupted and can be continued.

    Raises:
        DataError: If too many steps in a row were skipped.
    """
    config, engine = training.config, training.engine
    run, first = config.run, distributed.world()[0] == 0
    saved, damaged = training.start, Damaged(run.out, training.start, first)
    stop.defer()
    with Monitor(run.out, training.start, run.steps, config.monitor.log_every, first) as monitor:
        for step in range(training.start, run.steps):
            training.progress.step = step
            if saved < step and step % run.checkpoint_every == 0:
                saved = save(training, step)
            if asked_to_stop(training, stop):
                if saved < step:
                    save(training, step)
                logger.info("stopped at step %d; the same command continues", step)
                return False
            report, views, keys = train_step(training, step)
            damaged.add(step, report.left_out)
            if report.norm is not None:
                report = replace(report, routers=training.routers.follow(report.expert_use))
            monitor.show(report)
            training.health.judge(report, keys)
            show(monitor, engine, views, step + 1, config)
        save(training, run.steps)
    damaged.sum_up()
    return True


def asked_to_stop(training: Training, stop: StopFlag) -> bool:
    """Wait for the data of the next step; whether a signal came to any rank, before or meanwhile.

    No rank has begun the step then, so that all can write a checkpoint.
    """
    try:
        with stop.waiting():
            training.parts.wait()
    except KeyboardInterrupt:
        logger.info("asked to stop by %s", stop.name)
    return distributed.any_rank(bool(stop), training.engine.device)


def save(training: Training, step: int) -> int:
    """Write a checkpoint; the step."""
    config = training.config
    training.progress.at("saving")
    judged = {"health": training.health.state(), "routers": training.routers.state()}
    about = {**training.about, **judged}
    checkpoints.save(training.engine, config.run.out, step, about, config.run.keep)
    training.progress.at("computing")
    return step


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
