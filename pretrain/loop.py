"""The training loop."""

import logging

from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.faults.health import Health
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
        DataError: If too many steps in a row had a loss that is not finite.
    """
    config, engine = training.config, training.engine
    run, first = config.run, distributed.world()[0] == 0
    saved, health = training.start, Health(config.health)
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
            health.judge(report, keys)
            show(monitor, engine, views, step + 1, config)
        save(training, run.steps)
    return True


def save(training: Training, step: int) -> None:
    """Write a checkpoint."""
    config = training.config
    checkpoints.save(training.engine, config.run.out, step, training.about, config.run.keep)


def show(monitor: Monitor, engine: Engine, views: Views, step: int, config: PretrainConfig) -> None:
    """Weights of the sequences and, every so often, a picture."""
    if step % config.monitor.log_every == 0:
        monitor.show_fusion(engine.module.encoder, step)
    every = config.monitor.pictures_every
    # With shared experts a forward pass takes all ranks.
    if every and step % every == 0 and (monitor.active or engine.experts is not None):
        with engine.arithmetic():
            filled = engine.module.picture(views)
        if filled is None or not monitor.active:
            return
        patch_size = engine.module.encoder.patch_size
        monitor.show_picture(reconstruction_picture(views, filled, patch_size), step)
